"""The by-products of `jaxsr upscale --confidence`: intervals and doubt, as images or DICOM."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from jaxsr.commands.upscale_files import Job, by_products
from jaxsr.data import dicom_maps, image_files
from jaxsr.data.decoded import Method
from jaxsr.data.dicom_maps import Shown
from jaxsr.data.image_files import ImageInfo
from jaxsr.inference import provenance
from jaxsr.inference.confidence import Calibration, Confidence
from jaxsr.inference.provenance import Provenance

Write = Callable[[np.ndarray], None]

# Added to the numbers of the films in their series, so that films, intervals and doubt are listed
# one after another.
_INTERVAL_PLACE, _DOUBT_PLACE = 10_000, 20_000


def notes(made_by: Provenance, calibration: Calibration) -> tuple[Provenance, Provenance]:
  """Returns the provenance of the intervals and of the doubt."""
  by = f'calibration {calibration.digest} of {calibration.patients} patients'
  interval = f'half width of {calibration.interval.coverage:.0%} intervals, {by}'
  doubt = f'tiles with an error above {calibration.doubt.bad:g} gray levels of 255, {by}'
  return made_by._replace(content=interval), made_by._replace(content=doubt)


def are_done(job: Job, made_by: Provenance, calibration: Calibration) -> bool:
  """Whether both files hold what this calibration makes of the image."""
  found = zip(by_products(job), notes(made_by, calibration), strict=True)
  return all(provenance.is_done(path, note) for path, note in found)


def summary(share: float, calibration: Calibration) -> str:
  """Returns a sentence on the intervals and the share of doubtful pixels of an image."""
  return (
    f'{calibration.interval.coverage:.0%} intervals by calibration {calibration.digest}; doubt in '
    f'{share:.1%} of the pixels.'
  )


class Writer:
  """Writes the intervals and the doubt of an image, from the top."""

  def __init__(self, write_half: Write, write_doubt: Write):
    self._write_half, self._write_doubt = write_half, write_doubt
    self._doubtful, self._pixels = 0, 0

  @property
  def share(self) -> float:
    """The share of doubtful pixels."""
    return self._doubtful / max(1, self._pixels)

  def write(self, found: Confidence) -> None:
    """Add some rows, or all of them."""
    self._write_half(found.half_width)
    self._write_doubt(found.doubt)
    self._doubtful += int(np.count_nonzero(found.doubt))
    self._pixels += found.doubt.size


@contextmanager
def writing(
  job: Job,
  shape: tuple[int, int],
  made_by: Provenance,
  calibration: Calibration,
  *,
  kind: np.dtype,
  info: ImageInfo,
  scale: int,
) -> Iterator[Writer]:
  """Yield a writer of intervals, in whole gray levels of the image, and doubt, 255 where it is.

  Half widths are rounded down: between two images of whole gray levels, a difference is within the
  half width if it is within that number.

  Args:
    job: the image, which decides the names.
    shape: height and width of the upscaled image.
    made_by: its provenance.
    calibration: the calibration of its network.
    kind: its dtype.
    info: the metadata of the source that is kept.
    scale: the upscaling factor.
  """
  notes_of, full, most = notes(made_by, calibration), (*shape, 1), np.iinfo(kind).max
  with ExitStack() as stack:
    interval, doubt = (
      stack.enter_context(
        image_files.writing(path, full, np.dtype(k), str(note), info=like, scale=scale)
      )
      for path, k, note, like in zip(
        by_products(job), (kind, np.uint8), notes_of, (info, info._replace(bits=8)), strict=True
      )
    )
    yield Writer(
      lambda half: interval.write(np.floor(half).clip(0, most).astype(kind)[..., None]),
      lambda mask: doubt.write(np.where(mask, 255, 0).astype(np.uint8)[..., None]),
    )


@contextmanager
def writing_dicom(
  job: Job,
  shape: tuple[int, int],
  made_by: Provenance,
  calibration: Calibration,
  *,
  method: Method,
  compress: str | None,
) -> Iterator[Writer]:
  """Yield a writer of further instances of the enlarged image's series.

  `method` and `compress` are those of that image; the rest is as for `writing`.
  """
  by_interval, by_doubt = map(str, notes(made_by, calibration))
  coverage, bad = calibration.interval.coverage, calibration.doubt.bad
  width = (
    f'Half the width of the {coverage:.0%} interval of each pixel, not an image of the patient.'
  )
  tiles = f'White: the error may be above {bad:g} gray levels of 255. Not an image of the patient.'
  of_interval = Shown('INTERVAL', by_interval, width, _INTERVAL_PLACE)
  of_doubt = Shown('DOUBT', by_doubt, tiles, _DOUBT_PLACE)
  interval, doubt = by_products(job)
  like = shape, job.source, method
  with (
    dicom_maps.writing_half_widths(interval, *like, of_interval, compress=compress) as half,
    dicom_maps.writing_mask(doubt, *like, of_doubt, compress=compress) as mask,
  ):
    yield Writer(half.write, mask.write)
