"""Which images are measured, and how, whatever the networks. The module imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Protocol = Literal['xray', 'luma']


@dataclass(frozen=True, kw_only=True)
class Measurement:
  """The options that `jaxsr evaluate` and `jaxsr compare` share; their help shows these texts.

  Attributes:
    data: A folder of high-resolution images (searched recursively), an image, or a folder of
      records.
    output: The folder for the results; None writes nothing.
    protocol: How images become pairs: 'xray' for radiographs, 'luma' for natural images.
    split: The split of records to measure: SPLIT or SPLIT/FINDING.
    bits: The bit depth of 16-bit files without a tag, such as 12; 0: trust them.
    tables: A folder with NIH's Data_Entry_2017*.csv and BBox_List_2017.csv, for results by
      subgroup.
    ensemble: Average over the eight flips and rotations, at eight times the cost.
    agree: Measure what `jaxsr upscale` writes, which agrees with its input; bicubic is made to
      agree as well. The metrics without agreement are also given (raw_psnr, bicubic_raw_psnr, ...).
  """

  data: Path
  output: Path | None
  protocol: Protocol = 'xray'
  split: str = 'test'
  bits: int = 0
  tables: Path | None = None
  ensemble: bool = False
  agree: bool = True
