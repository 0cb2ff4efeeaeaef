"""Recognize films by the SHA-256 of their pixels, in any file format."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxsr import runtime
from jaxsr.data.sources import Source
from jaxsr.errors import ImageError, UserError

_LENGTH = 16  # hexadecimal digits: 64 bits, which no two of a million films share by chance


def of(image: np.ndarray) -> str:
  """Returns the start of the SHA-256 of an image's first channel [h, w, c], shape and depth."""
  plane = np.ascontiguousarray(image[..., 0])
  found = hashlib.sha256(f'{plane.dtype.name} {plane.shape}'.encode())
  found.update(plane.tobytes())
  return found.hexdigest()[:_LENGTH]


def of_source(source: Source) -> set[str]:
  """Compute the digests of all readable films of a source."""

  def digest(index: int) -> str:
    try:
      return of(source[index])
    except ImageError:
      return ''

  threads = max(2, runtime.cpu_count())
  return set(runtime.prefetch_map(digest, range(len(source)), threads)) - {''}


def to_text(digests: Iterable[str]) -> str:
  """Returns digests as the text of a file, one per line, sorted."""
  return ''.join(f'{digest}\n' for digest in sorted(digests))


def read(path: Path) -> set[str]:
  """Read a file of digests; raises UserError if it holds anything else."""
  found = set(path.read_text(encoding='utf-8', errors='replace').split())
  if any(len(x) != _LENGTH or not set(x) <= set('0123456789abcdef') for x in found):
    raise UserError(f'{path}: is not a list of the digests of films; fetch the package again')
  return found
