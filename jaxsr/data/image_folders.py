"""Find the image files below a folder."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from jaxsr.data import image_formats, remarks
from jaxsr.errors import UserError, brief, count
from jaxsr.files import MANIFEST


class Listing(NamedTuple):
  """The images below a folder, and the other files there, which are passed over."""

  images: list[Path]
  others: list[Path]


def find(root: str | Path) -> list[Path]:
  """List the image files below a folder, sorted; a file stands for itself.

  Links are followed, each folder once. Files with a suffix of an image are listed even if they
  cannot be read, so that reading them names them. Other files are listed if their content is an
  image; the rest is counted and named on stderr. Raises UserError if there is no image.
  """
  root = Path(root)
  if not os.path.lexists(root):
    raise UserError(f'{root}: no such file or folder')
  if not root.is_dir():
    return [root]
  images, others = _list(root)
  if others:
    names = brief([str(path.relative_to(root)) for path in others], most=3)
    text = f'passed over {count(len(others), "file")}, not images: {names}'
    remarks.add(root, 'passed over', text)
  if not images:
    raise UserError(f'{root}: holds no image ({image_formats.READABLE})')
  return images


def _list(root: Path) -> Listing:
  found, unreadable = Listing([], []), []
  for path in walk(root, lambda error: unreadable.append(Path(error.filename))):
    if path.name != MANIFEST:
      found[0 if image_formats.is_image(path) else 1].append(path)
  found.images.extend(unreadable)  # so that reading names them
  return Listing(sorted(found.images), sorted(found.others))


def walk(root: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
  """Yield the files below a folder, following links, each folder once.

  Hidden files and folders are left out: `.git` holds the content of what git-annex links to.

  Args:
    root: the folder.
    on_error: called for each folder that cannot be listed.
  """
  seen = set()
  for folder, folders, files in os.walk(root, followlinks=True, onerror=on_error):
    real = os.path.realpath(folder)
    if real in seen:
      folders.clear()
      continue
    seen.add(real)
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    yield from (Path(folder, name) for name in sorted(files) if not name.startswith('.'))
