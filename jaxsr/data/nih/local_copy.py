"""A local copy of the images in any common layout: flat, `images_*/images/`, archives, or mixed.

Archives are streamed and never extracted to disk. Only regular files with the publisher's image
names are read from them, into memory, up to a maximum size. If an image is both in a folder and in
an archive, the one in the folder is used. What cannot be read is named, never passed over.
"""

import bz2
import filecmp
import gzip
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxsr.data import image_files, image_folders
from jaxsr.data.nih import constants
from jaxsr.errors import ImageError, UserError, brief, flat

CHUNK = 250  # images of a folder per shard
MAX_IMAGE = 32 << 20  # bytes; the largest published image has less than one million
MAX_ENTRIES = 200_000  # per archive; a complete copy has 112,120 images
MAX_HEADER = 1 << 20  # bytes of a long name or an extended header
_TAR = ('.tar', '.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz')
_UNKNOWN = ('.zst', '.tzst', '.7z', '.rar', '.lz', '.lz4', '.z', '.cpio')  # archives, not read
_OPENERS = {b'\x1f\x8b': gzip.open, b'BZh': bz2.open, b'\xfd7zXZ': lzma.open}
_TABLES = (*constants.ENTRY_TABLES, *constants.SPLIT_LISTS.values(), constants.BOX_TABLE)


class Shard(NamedTuple):
  """A unit of work: an archive, or some images of a folder.

  Attributes:
    number: The index of the shard in its copy.
    path: The archive, or the folder.
    files: The images relative to the folder; empty for an archive.
    skip: The names of images that are not read from the archive.
  """

  number: int
  path: str
  files: tuple[str, ...] = ()
  skip: tuple[str, ...] = ()

  @property
  def title(self) -> str:
    """A short description for messages."""
    if not self.files:
      return Path(self.path).name
    return f'{Path(self.files[0]).name} to {Path(self.files[-1]).name}'


class LocalCopy(NamedTuple):
  """The shards and the tables below a folder.

  Attributes:
    root: The folder.
    shards: What is read.
    tables: The tables by their published names.
    problems: A message for each file and folder that cannot be read and is left out.
  """

  root: Path
  shards: tuple[Shard, ...]
  tables: dict[str, Path]
  problems: tuple[str, ...] = ()


def find(root: Path) -> LocalCopy:
  """Find the images, archives and tables below a folder, whose links are followed.

  Raises:
    UserError: If there are no images, or two different images of one name.
  """
  if not root.is_dir():
    raise UserError(f'{root}: no such folder; give the folder of the images or archives')
  root = root.resolve()  # workers may have another working directory
  images: dict[str, Path] = {}
  archives, problems, twice = [], [], []
  unlisted = lambda e: problems.append(f'{e.filename}: cannot be listed ({e.strerror})')  # noqa: E731
  for path in image_folders.walk(root, unlisted):
    name = path.name
    if constants.IMAGE_NAME.fullmatch(name):
      if _differ(images.setdefault(name, path), path):
        twice.append(f'{images[name].relative_to(root)} and {path.relative_to(root)}')
    elif path.is_symlink() and not path.exists():
      problems.append(f'{path}: is a link to a file or folder that does not exist')
    elif name.lower().endswith((*_TAR, '.zip')):
      if path.is_file():
        archives.append(path)
      else:
        problems.append(f'{path}: is not a regular file')
    elif name.lower().endswith(_UNKNOWN):
      problems.append(f'{path}: is an archive of a kind that is not read; unpack it')
  if twice:
    raise UserError(f'{root}: different images have one name; remove one of {brief(twice)}')
  if not images and not archives:
    raise UserError(
      brief(problems)
      or f'{root}: contains neither images such as 00000001_000.png nor archives; jaxsr data '
      'download nih downloads them'
    )
  names = sorted(images)
  files = [str(images[name].relative_to(root)) for name in names]
  groups = [tuple(files[i : i + CHUNK]) for i in range(0, len(files), CHUNK)]
  shards = [Shard(0, str(root), group) for group in groups]
  shards += [Shard(0, str(path), skip=tuple(names)) for path in sorted(archives)]
  numbered = tuple(part._replace(number=i) for i, part in enumerate(shards))
  return LocalCopy(root, numbered, tables(root), tuple(problems))


def _differ(first: Path, second: Path) -> bool:
  """Whether two files have different content, or one of them cannot be read."""
  if first == second:
    return False
  try:
    return not filecmp.cmp(first, second, shallow=False)
  except OSError:
    return True


def tables(root: Path) -> dict[str, Path]:
  """Find the published tables in a folder or its subfolders, compressed with gzip or not."""
  near = [path for pattern in ('*', '*/*') for path in sorted(root.glob(pattern))]
  named = [(path.name.removesuffix('.gz'), path) for path in near if path.is_file()]
  return {name: path for name, path in reversed(named) if name in _TABLES}


def read(shard: Shard) -> Iterator[tuple[str, bytes | ImageError]]:
  """Yields the name of each image of a shard, and its content or the reason it is not usable.

  Raises:
    UserError: If an archive is damaged or cannot be read, or has different images of one name; the
      latter after all images.
  """
  if shard.files:
    for file in shard.files:
      path = Path(shard.path, file)
      try:
        yield path.name, image_files.read_bytes(path, most=MAX_IMAGE)
      except ImageError as error:
        yield path.name, ImageError(Path(path.name), error.reason)
    return
  members = _zip(shard.path) if shard.path.lower().endswith('.zip') else _tar(shard.path)
  skip, seen, twice = set(shard.skip), {}, set()
  try:
    for name, content in members:
      if name in skip:
        continue
      known = (
        content.reason if isinstance(content, ImageError) else hashlib.sha256(content).digest()
      )
      if name not in seen:
        seen[name] = known
        yield name, content
      elif seen[name] != known:
        twice.add(name)
  except _DAMAGED as error:
    raise UserError(f'{shard.path}: is damaged ({flat(error)}); download it again') from error
  except RuntimeError as error:  # of zipfile: encrypted, or a compression that Python lacks
    raise UserError(
      f'{shard.path}: cannot be read ({flat(error)}); unpack it with another program'
    ) from error
  if twice:
    raise UserError(
      f'{shard.path}: contains different images of one name: {brief(sorted(twice))}; remove one'
    )


_DAMAGED = (
  tarfile.TarError,
  zipfile.BadZipFile,
  zlib.error,
  lzma.LZMAError,
  OSError,
  EOFError,
)


def _image_name(name: str) -> str | None:
  """Returns the image name of an archive member, without folders, or None for other files."""
  base = name.rpartition('/')[2]
  return base if constants.IMAGE_NAME.fullmatch(base) else None


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


def _too_large(name: str) -> ImageError:
  return ImageError(Path(name), f'is larger than {MAX_IMAGE >> 20} MiB')


def _tar(path: str) -> Iterator[tuple[str, bytes | ImageError]]:
  with open(path, 'rb') as plain:
    start = plain.read(6)
  opener = next((found for mark, found in _OPENERS.items() if start.startswith(mark)), open)
  with (
    opener(path, 'rb') as file,
    tarfile.open(fileobj=file, mode='r:', tarinfo=_Header) as archive,
  ):
    for count, member in enumerate(archive):
      if count >= MAX_ENTRIES:
        raise tarfile.ReadError(f'more than {MAX_ENTRIES} entries')
      archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps every header
      name = _image_name(member.name)
      if name is None or member.isdir():
        continue
      if not member.isreg():
        kind = 'a link' if member.issym() or member.islnk() else 'not a regular file'
        yield name, ImageError(Path(name), f'is {kind} in {Path(path).name}')
        continue
      if member.issparse() or member.size > MAX_IMAGE:
        yield name, _too_large(name)
        continue
      content = archive.extractfile(member)
      assert content is not None  # it is a regular file
      yield name, content.read()
    while rest := file.read(1 << 20):  # to the end, where the checksums are
      if rest.strip(b'\0'):
        raise tarfile.ReadError('there is data after the end of the archive')


def _zip(path: str) -> Iterator[tuple[str, bytes | ImageError]]:
  with zipfile.ZipFile(path) as archive:
    members = archive.infolist()
    if len(members) > MAX_ENTRIES:
      raise zipfile.BadZipFile(f'more than {MAX_ENTRIES} entries')
    for member in members:
      name = _image_name(member.filename)
      if name is not None:
        if member.flag_bits & 1:
          raise RuntimeError(f'{name} is encrypted')
        large = member.file_size > MAX_IMAGE
        yield name, _too_large(name) if large else archive.read(member)
