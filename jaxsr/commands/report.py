"""Progress bars, remarks on a batch, and the list of the images that failed."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from jaxsr.errors import FAILED, count


def progress(items: Iterable, total: int, name: str) -> Iterable:
  """Show a progress bar if the output is a terminal."""
  return tqdm(items, total=total, desc=name, unit='image', disable=not sys.stderr.isatty())


def notes(remarks: Iterable[Iterable[str]]) -> None:
  """Print each remark once, with the number of images that it holds for.

  Args:
    remarks: the remarks of each image, for example 'is not a chest radiograph'.
  """
  remarks = [tuple(dict.fromkeys(each)) for each in remarks]
  for text, times in Counter(text for each in remarks for text in each).items():
    print(f'note: {times:,} of {count(len(remarks), "image")}: {text}', file=sys.stderr)


def failures(failed: Sequence[object], what: str) -> int:
  """Print the images that failed; return the exit code."""
  for error in failed:
    print(f'{what}: {error}', file=sys.stderr)
  if failed:
    print(f'{what}: {count(len(failed), "image")}', file=sys.stderr)
  return FAILED if failed else 0
