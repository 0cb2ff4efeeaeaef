"""The by-products of `jaxsr upscale --confidence`: intervals and doubt, as images."""

from pathlib import Path

import numpy as np

from jaxsr.commands.upscale_files import by_products
from jaxsr.data import image_files
from jaxsr.data.image_files import ImageInfo
from jaxsr.inference import provenance
from jaxsr.inference.confidence import Calibration, Confidence
from jaxsr.inference.provenance import Provenance


def notes(made_by: Provenance, calibration: Calibration) -> tuple[Provenance, Provenance]:
  """Returns the provenance of the intervals and of the doubt."""
  by = f'calibration {calibration.digest} of {calibration.patients} patients'
  interval = f'half width of {calibration.interval.coverage:.0%} intervals, {by}'
  doubt = f'tiles with an error above {calibration.doubt.bad:g} gray levels of 255, {by}'
  return made_by._replace(content=interval), made_by._replace(content=doubt)


def are_done(target: Path, made_by: Provenance, calibration: Calibration) -> bool:
  """Whether both files hold what this calibration makes of the image."""
  found = zip(by_products(target), notes(made_by, calibration), strict=True)
  return all(provenance.is_done(path, note) for path, note in found)


def write(
  target: Path,
  found: Confidence,
  made_by: Provenance,
  calibration: Calibration,
  *,
  info: ImageInfo,
  scale: int,
) -> None:
  """Write the intervals, in whole gray levels of the image, and the doubt, 255 where it is.

  Half widths are rounded down: between two images of whole gray levels, a difference is within the
  half width if it is within that number.
  """
  interval, doubt = by_products(target)
  notes_of = notes(made_by, calibration)
  kind = found.image.dtype
  half = np.floor(found.half_width).clip(0, np.iinfo(kind).max).astype(kind)[..., None]
  image_files.write(interval, half, str(notes_of[0]), info=info, scale=scale)
  mask = np.where(found.doubt, 255, 0).astype(np.uint8)[..., None]
  image_files.write(doubt, mask, str(notes_of[1]), info=info._replace(bits=8), scale=scale)
