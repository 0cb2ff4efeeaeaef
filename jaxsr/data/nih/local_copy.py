"""A local copy of the images in any common layout: flat, `images_*/images/`, archives, or mixed.

Archives are streamed and never extracted to disk. Only regular files with the publisher's image
names are read from them, into memory, up to a maximum size. If an image is both in a folder and in
an archive, the one in the folder is used.
"""

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxsr.data import image_files
from jaxsr.data.nih import constants
from jaxsr.errors import ImageError, UserError, flat

CHUNK = 250  # images of a folder per shard
MAX_IMAGE = 32 << 20  # bytes; the largest published image has less than one million
MAX_ENTRIES = 200_000  # per archive; a complete copy has 112,120 images
MAX_HEADER = 1 << 20  # bytes of a long name or an extended header
_TAR = ('.tar.gz', '.tgz', '.tar')
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
  """The shards and the tables below a folder, the tables by their published names."""

  root: Path
  shards: tuple[Shard, ...]
  tables: dict[str, Path]


def find(root: Path) -> LocalCopy:
  """Find the images, archives and tables below a folder; raises UserError if it has no images."""
  if not root.is_dir():
    raise UserError(f'{root}: no such folder; give the folder of the images or archives')
  root = root.resolve()  # workers may have another working directory
  images: dict[str, str] = {}
  archives: list[Path] = []
  for folder, folders, files in os.walk(root, followlinks=True):
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    for name in sorted(files):
      path = Path(folder, name)
      if constants.IMAGE_NAME.fullmatch(name):
        images.setdefault(name, str(path.relative_to(root)))
      elif name.endswith((*_TAR, '.zip')):
        archives.append(path)
  if not images and not archives:
    raise UserError(
      f'{root}: contains neither images such as 00000001_000.png nor archives; jaxsr data download '
      'nih downloads them'
    )
  names = sorted(images)
  groups = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
  shards = [Shard(0, str(root), tuple(images[n] for n in group)) for group in groups]
  shards += [Shard(0, str(path), skip=tuple(names)) for path in sorted(archives)]
  return LocalCopy(root, tuple(p._replace(number=i) for i, p in enumerate(shards)), tables(root))


def tables(root: Path) -> dict[str, Path]:
  """Find the published tables in a folder or its subfolders, compressed with gzip or not."""
  near = [path for pattern in ('*', '*/*') for path in sorted(root.glob(pattern))]
  named = [(path.name.removesuffix('.gz'), path) for path in near if path.is_file()]
  return {name: path for name, path in reversed(named) if name in _TABLES}


def read(shard: Shard) -> Iterator[tuple[str, bytes | ImageError]]:
  """Yields the name of each image of a shard, and its content or the reason it is not usable.

  Raises:
    UserError: If an archive is damaged.
  """
  if shard.files:
    for file in shard.files:
      path = Path(shard.path, file)
      try:
        yield path.name, image_files.read_bytes(path, most=MAX_IMAGE)
      except ImageError as error:
        yield path.name, ImageError(Path(path.name), error.reason)
    return
  members = _zip(shard.path) if shard.path.endswith('.zip') else _tar(shard.path)
  seen = set(shard.skip)
  try:
    for name, content in members:
      if name not in seen:
        seen.add(name)
        yield name, content
  except (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
    raise UserError(f'{shard.path}: is damaged ({flat(error)}); download it again') from error


def _image_name(name: str) -> str | None:
  """Returns the image name of an archive member, without folders, or None for other files."""
  base = name.rpartition('/')[2]
  return base if constants.IMAGE_NAME.fullmatch(base) else None


class _Header(tarfile.TarInfo):
  """A member's header that limits the size of names, so that they cannot fill the memory."""

  @classmethod
  def frombuf(cls, buf, encoding, errors):
    found = super().frombuf(buf, encoding, errors)
    if not found.isreg() and not found.isdir() and found.size > MAX_HEADER:
      raise tarfile.ReadError(f'a header of {found.size} bytes')
    return found


def _too_large(name: str) -> ImageError:
  return ImageError(Path(name), f'is larger than {MAX_IMAGE >> 20} MiB')


def _tar(path: str) -> Iterator[tuple[str, bytes | ImageError]]:
  with tarfile.open(path, 'r|*', tarinfo=_Header) as archive:
    for count, member in enumerate(archive):
      if count >= MAX_ENTRIES:
        raise tarfile.ReadError(f'more than {MAX_ENTRIES} entries')
      archive.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps every header
      name = _image_name(member.name)
      if name is None or not member.isreg():
        continue
      if member.issparse() or member.size > MAX_IMAGE:
        yield name, _too_large(name)
        continue
      file = archive.extractfile(member)
      assert file is not None  # it is a regular file
      content = file.read()
      if len(content) != member.size:
        raise tarfile.ReadError(f'{name} is truncated')
      yield name, content


def _zip(path: str) -> Iterator[tuple[str, bytes | ImageError]]:
  with zipfile.ZipFile(path) as archive:
    members = archive.infolist()
    if len(members) > MAX_ENTRIES:
      raise zipfile.BadZipFile(f'more than {MAX_ENTRIES} entries')
    for member in members:
      name = _image_name(member.filename)
      if name is not None:
        large = member.file_size > MAX_IMAGE
        yield name, _too_large(name) if large else archive.read(member)
