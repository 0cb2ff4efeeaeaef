"""Progress bars, remarks on a batch, and the list of the images that failed."""

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from jaxsr.errors import FAILED, WriteError, count, describe
from jaxsr.inference.agreement import Agreement


def progress(items: Iterable, total: int, name: str) -> Iterable:
  """Show a progress bar if the output is a terminal."""
  return tqdm(items, total=total, desc=name, unit='image', disable=not sys.stderr.isatty())


def unfinished(error: Exception, made: int, total: int, way_out: str) -> WriteError:
  """Returns the error of a batch that a full disk ended, with the number of images it lacks."""
  verb = 'is' if total - made == 1 else 'are'
  missing = f'{total - made:,} of {count(total, "image")} {verb} not made'
  return WriteError(f'{describe(error)}; {missing}; free space and {way_out}')


def notes(remarks: Iterable[Iterable[str]]) -> None:
  """Print each remark once, with the number of images that it holds for.

  Args:
    remarks: the remarks of each image, for example 'is not a chest radiograph'.
  """
  remarks = [tuple(dict.fromkeys(each)) for each in remarks]
  for text, times in Counter(text for each in remarks for text in each).items():
    print(f'note: {times:,} of {count(len(remarks), "image")}: {text}', file=sys.stderr)


def agreement(found: Iterable[tuple[Path, Agreement | None]]) -> None:
  """Print in how many pixels the results agree with the images they were made from."""
  each = [(path, one) for path, one in found if one is not None]
  if not each:
    return
  equal, pixels = (sum(getattr(one, name) for _, one in each) for name in ('equal', 'pixels'))
  most = max(one.most for _, one in each)
  names = each[0][0].name if len(each) == 1 else f'all {len(each):,} images'
  if equal < pixels and len(each) > 1:
    exact = sum(one.equal == one.pixels for _, one in each)
    names = f'{exact:,} of {len(each):,} images in every pixel, in total'
  off = f', at most {count(most, "gray level")} off' if most else ''
  print(f'agrees with {names} in {equal:,} of {pixels:,} pixels{off}')


def failures(failed: Sequence[object], what: str) -> int:
  """Print the images that failed; returns the exit code."""
  for error in failed:
    print(f'{what}: {error}', file=sys.stderr)
  if failed:
    print(f'{what}: {count(len(failed), "image")}', file=sys.stderr)
  return FAILED if failed else 0
