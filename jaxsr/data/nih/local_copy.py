"""A copy of the images as it lies: a flat folder, `images_*/images/`, archives, or some of each.

Archives are streamed and nothing of them is written: of their members only regular files named as
the publisher names images are read, into memory, up to a size. Where an image is both in a folder
and in an archive, the folder's is taken.
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

CHUNK = 250  # images of a folder that are a unit of work
MAX_IMAGE = 32 << 20  # bytes; the largest published one has less than one million
MAX_ENTRIES = 200_000  # of an archive; a whole copy in one holds 112,120
MAX_HEADER = 1 << 20  # bytes of a name or an extended header
_TAR = ('.tar.gz', '.tgz', '.tar')
_TABLES = (*constants.ENTRY_TABLES, *constants.SPLIT_LISTS.values(), constants.BOX_TABLE)


class Shard(NamedTuple):
  """A unit of work: an archive, or some images of a folder by their paths below the root."""

  number: int
  path: str
  files: tuple[str, ...] = ()
  skip: tuple[str, ...] = ()

  @property
  def title(self) -> str:
    """Say what it is."""
    if not self.files:
      return Path(self.path).name
    return f'{Path(self.files[0]).name} to {Path(self.files[-1]).name}'


class LocalCopy(NamedTuple):
  """What lies below a folder: units of images, and the tables by the publisher's names."""

  root: Path
  shards: tuple[Shard, ...]
  tables: dict[str, Path]


def find(root: Path) -> LocalCopy:
  """Look through a folder; raises UserError where it holds no images."""
  if not root.is_dir():
    raise UserError(f'{root}: no such folder')
  root = root.resolve()  # workers may stand elsewhere
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
      f'{root}: holds neither images like 00000001_000.png nor archives; jaxsr data download nih '
      'fetches them'
    )
  names = sorted(images)
  groups = [names[i : i + CHUNK] for i in range(0, len(names), CHUNK)]
  shards = [Shard(0, str(root), tuple(images[n] for n in group)) for group in groups]
  shards += [Shard(0, str(path), skip=tuple(names)) for path in sorted(archives)]
  return LocalCopy(root, tuple(p._replace(number=i) for i, p in enumerate(shards)), tables(root))


def tables(root: Path) -> dict[str, Path]:
  """Find the publisher's tables in a folder and those directly below it, packed or not."""
  near = [path for pattern in ('*', '*/*') for path in sorted(root.glob(pattern))]
  named = [(path.name.removesuffix('.gz'), path) for path in near if path.is_file()]
  return {name: path for name, path in reversed(named) if name in _TABLES}


def read(shard: Shard) -> Iterator[tuple[str, bytes | ImageError]]:
  """Yield the content of each image of a shard by name, or why it cannot be used.

  Raises UserError if an archive is damaged.
  """
  if shard.files:
    for file in shard.files:
      path = Path(shard.path, file)
      try:
        yield path.name, image_files.read_bytes(path, most=MAX_IMAGE)
      except ImageError as error:
        yield path.name, error
    return
  members = _zip(shard.path) if shard.path.endswith('.zip') else _tar(shard.path)
  seen = set(shard.skip)
  try:
    for name, content in members:
      if name not in seen:
        seen.add(name)
        yield name, content
  except (tarfile.TarError, zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
    raise UserError(f'{shard.path}: is damaged ({flat(error)}); fetch it again') from error


def _image_name(name: str) -> str | None:
  """Give the name of an image that a member holds, if it does; folders are of no account."""
  base = name.rpartition('/')[2]
  return base if constants.IMAGE_NAME.fullmatch(base) else None


class _Header(tarfile.TarInfo):
  """A member's header, which may not claim names that fill the memory."""

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
      archive.members = []  # type: ignore[attr-defined]  # it would keep all headers
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
        raise tarfile.ReadError(f'{name} is cut off')
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
