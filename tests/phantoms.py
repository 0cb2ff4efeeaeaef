"""Phantoms that are drawn once per process, since most tests use the same few.

Importing this module replaces the function, which must happen before other modules import it.
"""

import functools

from jaxsr.data import phantom as drawing

draw = drawing.phantom  # without memory


@functools.lru_cache(maxsize=256)
def _drawn(*arguments, **options):
  return draw(*arguments, **options)


@functools.wraps(draw)
def remembered(*arguments, **options):
  """Returns a copy of a phantom that is drawn at the first call."""
  return _drawn(*arguments, **options).copy()


drawing.phantom = remembered
