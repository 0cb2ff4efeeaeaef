"""A fingerprint of the images of a run, by which a resumed run knows whether they are the same."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxsr import files
from jaxsr.data.sources import Folder, Paired, Phantoms, Source, Subset
from jaxsr.errors import ImageError

ALL, SAMPLE = 256, 16  # up to so many images are all hashed; of more, at most so many are


def of(source: Source) -> dict[str, Any]:
  """Compute the fingerprint of a source.

  Returns:
    The number of images, digests of their names and of their sizes in pixels and bytes, and the
    SHA-256 of each image (`of_image`) by name, of evenly spaced ones if there are many. Empty for
    phantoms, which the config determines.
  """
  source = source.source if isinstance(source, Subset) else source
  if isinstance(source, Phantoms):
    return {}
  if isinstance(source, Paired):
    return of(source.hr) | {'low_resolution': of(source.lr)}
  found = {
    'images': len(source),
    'names': _digest(source.names),
    'pixels': _digest(f'{height}x{width}' for height, width in source.sizes),
  }
  if isinstance(source, Folder):
    found['bytes'] = _digest(str(path.stat().st_size) for path in source.paths)
  step = 1 if len(source) <= ALL else -(-len(source) // SAMPLE)
  found['sample'] = {source.names[i]: _of_content(source, i) for i in range(0, len(source), step)}
  return found


def of_image(source: Source, index: int) -> str:
  """Returns the SHA-256 of an image's file, or of its pixels in records; '' if it cannot be read.

  It is followed by that of its acquired low resolution.
  """
  if isinstance(source, Subset):
    return of_image(source.source, source.indices[index])
  if isinstance(source, Paired):
    high, low = source.places[index]
    return of_image(source.hr, high) + of_image(source.lr, low)
  try:
    return _of_content(source, index)
  except OSError:
    return ''


def _of_content(source: Source, index: int) -> str:
  """Returns the SHA-256 of an image; '' for a damaged record."""
  if isinstance(source, Folder):
    return files.sha256(source.paths[index])
  try:
    gray = source[index][..., 0]  # channels are copies
  except ImageError:
    return ''
  return hashlib.sha256(gray.tobytes()).hexdigest()


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
  """Describe the first difference of two fingerprints; '' if there is none or one is empty."""
  if not old or not new:
    return ''
  if old['images'] != new['images']:
    return f'there were {old["images"]} images, now there are {new["images"]}'
  if old['names'] != new['names']:
    return 'images have other names'
  before, after = old.get('sample', {}), new.get('sample', {})
  if other := [name for name in before if before[name] != after.get(name)]:
    return f'the content of {other[0]} has changed'
  changed = any(old.get(name) != new.get(name) for name in ('pixels', 'bytes'))
  if changed:
    return 'images have other sizes'
  lower = compare(old.get('low_resolution', {}), new.get('low_resolution', {}))
  return f'low resolution: {lower}' if lower else ''


def _digest(lines: Iterable[str]) -> str:
  found = hashlib.sha256()
  for line in lines:
    found.update(line.encode(errors='surrogateescape') + b'\n')
  return found.hexdigest()[:16]
