"""What sub-commands tell a user about their images."""

import sys
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from jaxsr.errors import ImageError

SOME_FAILED = 1


def progress(items: Iterable, total: int, name: str) -> Iterable:
  """Show a bar where a person looks."""
  return tqdm(items, total=total, desc=name, unit='image', disable=not sys.stderr.isatty())


def failures(failed: Sequence[ImageError], what: str) -> int:
  """Name the images that failed; return the exit code."""
  for error in failed:
    print(f'{what}: {error}', file=sys.stderr)
  if failed:
    print(f'{what}: {len(failed)} images', file=sys.stderr)
  return SOME_FAILED if failed else 0
