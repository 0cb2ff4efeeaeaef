"""A local copy of the images in any common layout: flat, `images_*/images/`, archives, or mixed.

If an image is both in a folder and in an archive, the one in the folder is used. What cannot be
read is named, and other files are counted.
"""

import filecmp
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxsr.data import image_files, image_folders, remarks
from jaxsr.data.nih import archives, constants
from jaxsr.errors import ImageError, UserError, brief, count

CHUNK = 250  # images of a folder per shard
_UNFINISHED = ('.part', '.bad', '.crdownload', '.partial', '.download')  # of downloads
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
  packed, problems, twice, others = [], [], [], []
  unlisted = lambda e: problems.append(f'{e.filename}: cannot be listed ({e.strerror})')  # noqa: E731
  for path in image_folders.walk(root, unlisted):
    if name := archives.image_name(path.name):
      if _differ(images.setdefault(name, path), path):
        twice.append(f'{images[name].relative_to(root)} and {path.relative_to(root)}')
      continue
    kind, problem = _recognize(path)
    if problem:
      problems.append(f'{path}: {problem}')
    elif kind == 'archive':
      packed.append(path)
    elif kind == 'other':
      others.append(str(path.relative_to(root)))
  if twice:
    raise UserError(f'{root}: different images have one name; remove one of {brief(twice)}')
  if not images and not packed:
    raise UserError(
      brief(problems)
      or f'{root}: contains neither images such as 00000001_000.png nor archives; jaxsr data '
      'download nih downloads them'
    )
  if others:
    text = 'neither images nor archives nor tables'
    some = brief(sorted(others), most=3)
    remarks.add(root, 'passed over', f'passed over {count(len(others), "file")}, {text}: {some}')
  names = sorted(images)
  files = [str(images[name].relative_to(root)) for name in names]
  groups = [tuple(files[i : i + CHUNK]) for i in range(0, len(files), CHUNK)]
  shards = [Shard(0, str(root), group) for group in groups]
  shards += [Shard(0, str(path), skip=tuple(names)) for path in sorted(packed)]
  numbered = tuple(part._replace(number=i) for i, part in enumerate(shards))
  return LocalCopy(root, numbered, tables(root), tuple(problems))


def _recognize(path: Path) -> tuple[str, str]:
  """Returns `archive`, `known` or `other`, and the reason why a file cannot be read, or ''."""
  if path.is_symlink() and not path.exists():
    return '', 'is a link to a file or folder that does not exist'
  if not path.is_file():
    return 'other', 'is not a regular file' if archives.is_named_as_one(path.name) else ''
  if path.name.removesuffix('.gz') in _TABLES or path.name == 'lock':  # of a download
    return 'known', ''
  if path.suffix.lower() in _UNFINISHED:
    whole = path.with_suffix('')
    unfinished = archives.is_named_as_one(whole.name) and not whole.exists()
    return 'other', 'is an unfinished download; finish it' if unfinished else ''
  try:
    found = archives.recognize(path)
  except OSError as error:
    return '', f'cannot be read ({error.strerror})'
  return 'archive' if found.kind else 'other', found.problem


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
      name = archives.image_name(path.name) or path.name
      try:
        yield name, image_files.read_bytes(path, most=archives.MAX_IMAGE)
      except ImageError as error:
        yield name, ImageError(Path(name), error.reason)
    return
  skip, seen, twice = set(shard.skip), {}, set()
  for name, content in archives.read(shard.path):
    if name in skip:
      continue
    known = content.reason if isinstance(content, ImageError) else hashlib.sha256(content).digest()
    if name not in seen:
      seen[name] = known
      yield name, content
    elif seen[name] != known:
      twice.add(name)
  if twice:
    raise UserError(
      f'{shard.path}: contains different images of one name: {brief(sorted(twice))}; remove one'
    )
