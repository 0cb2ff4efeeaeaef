"""Write TIFF by tifffile, with a comment that is read back."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from jaxtyping import UInt

from jaxsr.data import tiff_pages
from jaxsr.data.decoded import ImageInfo
from jaxsr.data.dicom import File

_MAX_SAMPLE_VALUE = 281


def write(path: Path, array: UInt[np.ndarray, 'h w c'], note: str, info: ImageInfo) -> None:
  """Write stored values, with a comment and the metadata."""
  gray = array.shape[2] == 1
  tifffile.imwrite(
    path, array[..., 0] if gray else array, **_options(array.shape, note, info, 8 * array.itemsize)
  )


def write_empty(
  path: Path, shape: tuple[int, int, int], kind: Any, note: str, info: ImageInfo
) -> int:
  """Write a file whose pixels follow, little-endian and row by row; returns where they begin."""
  kind = np.dtype(kind).newbyteorder('<')
  form = shape[:2] if shape[2] == 1 else shape
  found = tifffile.imwrite(
    path,
    shape=form,
    dtype=kind,
    byteorder='<',
    returnoffset=True,
    **_options(shape, note, info, 8 * kind.itemsize),
  )
  assert found is not None
  return found[0]


def _options(shape: tuple[int, ...], note: str, info: ImageInfo, container: int) -> dict[str, Any]:
  """Returns the options of tifffile for the comment and the metadata."""
  gray = shape[2] == 1
  tops = (2**info.bits - 1,) * shape[2]
  limit = (_MAX_SAMPLE_VALUE, 'H', len(tops), tops, True)
  return {
    'photometric': 'minisblack' if gray else 'rgb',
    'planarconfig': None if gray else 'contig',
    'description': note.encode(errors='replace') or None,
    'resolution': info.dpi,
    'resolutionunit': 'INCH' if info.dpi else None,
    'iccprofile': info.icc,
    'extratags': [limit] if info.bits < container else [],
    'software': False,
    'metadata': None,
  }


def read_note(file: File) -> str:
  """Read the comment that `write` put into a file; '' if there is none."""
  with tiff_pages.quiet(), tifffile.TiffFile(file) as tif:
    return tif.pages.first.description
