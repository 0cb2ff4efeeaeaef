"""Read the images of zip and tar archives, the latter also compressed with gzip, bzip2 or xz.

Archives are recognized by their content, streamed and never extracted to disk. Only regular files
with the publisher's image names are read from them, into memory, up to a maximum size.
"""

import bz2
import contextlib
import gzip
import lzma
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxsr.data.nih import constants
from jaxsr.errors import ImageError, UserError, flat

MAX_IMAGE = 32 << 20  # bytes; the largest published image has less than one million
MAX_ENTRIES = 200_000  # per archive; a complete copy has 112,120 images
MAX_HEADER = 1 << 20  # bytes of a long name or an extended header
_TAR = re.compile(r'\.(tar(\.(gz|bz2|xz|lzma))?|tgz|taz|tbz2?|txz|tlz)$', re.IGNORECASE)
_ZIP = re.compile(r'\.zipx?$', re.IGNORECASE)
_UNKNOWN = re.compile(r'\.(t?zst|7z|rar|lz4?|z|cpio)$', re.IGNORECASE)
_OPENERS: dict[bytes, Callable[..., Any]] = {
  b'\x1f\x8b': gzip.open,
  b'BZh': bz2.open,
  b'\xfd7zXZ': lzma.open,
  b'\x5d\0\0': lzma.open,  # LZMA without the container of xz
}
_FORMATS = {  # that are not read, by their first bytes
  b'\x28\xb5\x2f\xfd': 'Zstandard',
  b"7z\xbc\xaf'\x1c": '7-Zip',
  b'Rar!\x1a\x07': 'RAR',
  b'\x04\x22\x4d\x18': 'LZ4',
  b'LZIP': 'lzip',
  b'\x1f\x9d': 'compress',
  b'07070': 'cpio',
  b'PK\x07\x08': 'a part of a split zip archive',
}
_BLOCK = 512  # bytes of a header of tar
_LOCAL = struct.Struct('<4s22x2H')  # of zip: signature, lengths of the name and of what follows it
_END = struct.Struct('<4sH4xH10x')  # of a zip archive: signature, this part, all entries
_END_64 = struct.Struct('<4s28xQ')  # signature, all entries
_BEFORE_END = 76  # bytes from `_END_64` to `_END`
_DAMAGED = (
  tarfile.TarError,
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  struct.error,
  OSError,
  EOFError,
  ValueError,  # such as a name that is not UTF-8
  LookupError,
  ArithmeticError,
)

Member = tuple[str, bytes | ImageError]


def image_name(path: str) -> str | None:
  r"""Returns the published name of an image file, without folders, or None for other files.

  Zip programs for Windows write `\` between folders, and other programs change the case.
  """
  base = re.split(r'[/\\]', path)[-1].lower()
  return base if constants.IMAGE_NAME.fullmatch(base) else None


class Format(NamedTuple):
  """What a file is by its content: `tar`, `zip` or empty, or the reason why it is not read."""

  kind: str
  problem: str = ''


def recognize(path: Path) -> Format:
  """Find out whether a file is an archive, by its content, or by its name if it is damaged.

  Raises:
    OSError: The file cannot be read.
  """
  by_name = 'zip' if _ZIP.search(path.name) else 'tar' if _TAR.search(path.name) else ''
  with open(path, 'rb') as file:
    head = file.read(_BLOCK)
  if found := _known(head, _FORMATS):
    return Format('', f'is {found}, which is not read; unpack it')
  if opener := _known(head, _OPENERS):
    head = b''
    with contextlib.suppress(*_DAMAGED, MemoryError), opener(path, 'rb') as unpacked:
      head = unpacked.read(_BLOCK)
    if _known(head, _OPENERS) or head.startswith(b'PK\x03\x04') or _known(head, _FORMATS):
      return Format('', 'is an archive that was compressed again; unpack it once')
  elif head.startswith((b'PK\x03\x04', b'PK\x05\x06')):
    return Format('zip' if by_name or _has_images(path) else '')
  if _is_tar(head):
    return Format('tar')
  unknown = 'is an archive of a kind that is not read; unpack it'
  return Format(by_name, unknown if _UNKNOWN.search(path.name) else '')


def _known(head: bytes, kinds: dict[bytes, Any]) -> Any:
  return next((found for mark, found in kinds.items() if head.startswith(mark)), None)


def _is_tar(head: bytes) -> bool:
  try:
    return bool(tarfile.TarInfo.frombuf(head, 'utf-8', 'surrogateescape').name)
  except tarfile.HeaderError:
    return False


def _has_images(path: Path) -> bool:
  """Whether a zip archive of another name has images: many other files are zip archives, too."""
  try:
    with zipfile.ZipFile(path) as archive:
      return any(image_name(name) or is_named_as_one(name) for name in archive.namelist())
  except _DAMAGED:
    return False


def is_named_as_one(name: str) -> bool:
  """Whether a name is that of an archive."""
  return any(pattern.search(name) for pattern in (_TAR, _ZIP, _UNKNOWN))


def read(path: str) -> Iterator[Member]:
  """Yields the images of an archive, each with its content or the reason it is not usable.

  An archive in the archive is yielded by its name, with a reason.

  Raises:
    UserError: The archive is damaged or cannot be read.
  """
  try:
    yield from _zip(path) if recognize(Path(path)).kind == 'zip' else _tar(path)
  except _DAMAGED as error:
    if isinstance(error, OSError) and error.errno is not None:
      raise UserError(f'{path}: cannot be read ({error.strerror})') from error
    raise UserError(f'{path}: is damaged ({flat(error)}); download it again') from error
  except RuntimeError as error:  # of zipfile: encrypted, or a compression that Python lacks
    raise UserError(
      f'{path}: cannot be read ({flat(error)}); unpack it with another program'
    ) from error


class _Header(tarfile.TarInfo):
  """A member's header with two checks that tarfile lacks.

  The size of names is limited, so that they cannot fill the memory. A header that is damaged or cut
  off is an error, not the end of the archive.
  """

  @classmethod
  def fromtarfile(cls, archive):
    try:
      return super().fromtarfile(archive)
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
      raise  # the block of zeros at the end
    except tarfile.HeaderError as error:
      raise tarfile.ReadError(f'at byte {archive.offset}: {error}') from error

  @classmethod
  def frombuf(cls, buf, encoding, errors):
    found = super().frombuf(buf, encoding, errors)
    if not found.isreg() and not found.isdir() and found.size > MAX_HEADER:
      raise tarfile.ReadError(f'a header of {found.size} bytes')
    return found


class _Links:
  """The links of an archive whose names are those of images.

  Those that lead to an image of the same name in the archive are another way to the same content.
  """

  def __init__(self) -> None:
    self._images: set[str] = set()
    self._links: list[tuple[str, str]] = []

  def add_image(self, path: str) -> None:
    self._images.add(posixpath.normpath(path))

  def add_link(self, path: str, target: str) -> None:
    """Add a link; `target` is a path in the archive."""
    self._links.append((path, posixpath.normpath(target)))

  def others(self) -> Iterable[str]:
    """Yields the image names of links that lead elsewhere."""
    for path, target in self._links:
      name = image_name(path)
      if name is not None and (target not in self._images or image_name(target) != name):
        yield name


def _beside(path: str, target: str) -> str:
  """Returns the path in the archive of a symbolic link's target."""
  return posixpath.join(posixpath.dirname(path), target)


def _failed(name: str, reason: str) -> Member:
  return name, ImageError(Path(name), reason)


def _too_large(name: str) -> Member:
  return _failed(name, f'is larger than {MAX_IMAGE >> 20} MiB')


def _nested(path: str, member: str) -> Member:
  base = re.split(r'[/\\]', member)[-1]
  return _failed(base, f'is an archive in {Path(path).name}, which is not read; unpack it')


def _tar(path: str) -> Iterator[Member]:
  with open(path, 'rb') as plain:
    opener = _known(plain.read(_BLOCK), _OPENERS) or open
  links, here = _Links(), Path(path).name
  with (
    opener(path, 'rb') as file,
    tarfile.open(fileobj=file, mode='r:', tarinfo=_Header) as archive,
  ):
    for count, member in enumerate(archive):
      if count >= MAX_ENTRIES:
        raise tarfile.ReadError(f'more than {MAX_ENTRIES} entries')
      archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps every header
      name = image_name(member.name)
      if member.isreg() and name is None and is_named_as_one(member.name):
        yield _nested(path, member.name)
      if name is None or member.isdir():
        continue
      if member.islnk() or member.issym():
        target = member.linkname
        links.add_link(member.name, target if member.islnk() else _beside(member.name, target))
      elif not member.isreg():
        yield _failed(name, f'is not a regular file in {here}')
      else:
        links.add_image(member.name)
        if member.size > MAX_IMAGE:
          yield _too_large(name)
          continue
        content = archive.extractfile(member)
        assert content is not None  # it is a regular file
        yield name, content.read()
    while rest := file.read(1 << 20):  # to the end, where the checksums are
      if rest.strip(b'\0'):
        raise tarfile.ReadError('there is data after the end of the archive')
  for name in links.others():
    yield _failed(name, f'is a link in {here}')


def _zip(path: str) -> Iterator[Member]:
  links, here = _Links(), Path(path).name
  with open(path, 'rb') as file:
    count = _count(file)
    with zipfile.ZipFile(file) as archive:
      members = archive.infolist()
      if len(members) > MAX_ENTRIES:
        raise zipfile.BadZipFile(f'more than {MAX_ENTRIES} entries')
      if (len(members) - count) % (1 << 16):  # older programs write 16 bits of the number
        raise zipfile.BadZipFile(f'its directory has {len(members)} of {count} entries')
      for member in members:
        name = image_name(member.filename)
        if name is None:
          _check_name(file, member)
          if is_named_as_one(member.filename):
            yield _nested(path, member.filename)
        elif member.flag_bits & 1:
          raise RuntimeError(f'{name} is encrypted')
        elif member.file_size > MAX_IMAGE:
          yield _too_large(name)
        elif stat.S_ISLNK(member.external_attr >> 16):
          target = archive.read(member).decode('utf-8', 'replace')
          links.add_link(member.filename, _beside(member.filename, target))
        else:
          links.add_image(member.filename)
          yield name, archive.read(member)
  for name in links.others():
    yield _failed(name, f'is a link in {here}')


def _count(file: Any) -> int:
  """Returns the number of entries that a zip archive says it has.

  Its directory has no checksum, and zipfile does not compare the number.

  Raises:
    RuntimeError: The file is the last part of a split archive.
  """
  size = file.seek(0, 2)
  file.seek(max(size - (1 << 16) - _END.size - _BEFORE_END, 0))
  tail = file.read()
  at = tail.rfind(b'PK\x05\x06')
  if at < 0 or len(tail) - at < _END.size:
    raise zipfile.BadZipFile('it has no directory at its end')
  if at >= _BEFORE_END and tail[at - _BEFORE_END :].startswith(b'PK\x06\x06'):
    return _END_64.unpack_from(tail, at - _BEFORE_END)[1]
  _, part, count = _END.unpack_from(tail, at)
  if part not in (0, 0xFFFF):
    raise RuntimeError(f'it is part {part + 1} of a split archive')
  return count


def _check_name(file: Any, member: zipfile.ZipInfo) -> None:
  """Raise BadZipFile if only the directory does not name a member as an image.

  The directory has no checksum. zipfile compares the names of the members that it reads.
  """
  file.seek(member.header_offset)
  signature, length, _ = _LOCAL.unpack(file.read(_LOCAL.size))
  if signature != b'PK\x03\x04':
    raise zipfile.BadZipFile(f'{member.filename!r} is not at its place')
  name = file.read(length).decode('cp437')
  if image_name(name) is not None:
    raise zipfile.BadZipFile(f'its directory names {name!r} {member.filename!r}')
