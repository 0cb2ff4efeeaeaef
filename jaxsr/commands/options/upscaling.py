"""Options of the commands that enlarge images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsr.commands.options.shared import (
  Bits,
  Checkpoint,
  Debug,
  Depth,
  Ensemble,
  OptionalInt,
  OptionalPath,
  Runtime,
  Shard,
  Step,
  Width,
)


@dataclass(frozen=True)
class Upscale:
  """Enlarge images. File names, folders, format, bit depth and value range are kept.

  Results that the same network made from the same file are skipped.

  Attributes:
    inputs: Images, folders (searched recursively), or patterns such as 'images/*.png'.
    output: A file for one image, otherwise a folder (default: NAME_x4 beside each input).
    format: 'same': DICOM becomes DICOM, derived from the source, in its study and a new series;
      PNG, TIFF and JPEG stay; other formats become PNG. The content decides, not the suffix.
    compress: Compress DICOM without loss by JPEG-LS or JPEG 2000 (default: JPEG-LS for more than 32
      MB).
    scale: Above 1, up to 8 (default: the model's own, or 4). If there is no network of this scale,
      the next larger one enlarges and Pillow's bicubic filter reduces.
    size: The longer side of the results in pixels, instead of a scale.
    tile: The side of a tile in low-resolution pixels. Larger images are processed in overlapping
      tiles, which needs less memory and gives the same result up to rounding (default: auto, at
      most 512, and half of it whenever memory runs out).
    confidence: Also write NAME_interval.png, half the width of the 90 % interval of each pixel in
      gray levels, and NAME_doubt.png, white where the error may be large; beside DICOM, both are
      DICOM of the same series.
    calibration: A calibration from `jaxsr calibrate` (default: that of the package).
    agree: Change the result so that Pillow's bicubic reduction of it is the input again.
      Interpolations, and networks for noisy images, never do.
    overwrite: Recompute existing results, and replace those of other images of equal name. Files
      that `jaxsr upscale` did not write are never replaced.
  """

  inputs: Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar='IMAGE|FOLDER|PATTERN ...', help_behavior_hint=''),
  ]
  checkpoint: Checkpoint = None
  output: OptionalPath = None
  format: Literal['same', 'png', 'dicom'] = 'same'
  compress: Annotated[
    Literal['none', 'jpegls', 'j2k'] | None,
    tyro.conf.arg(metavar='{none,jpegls,j2k}', help_behavior_hint=''),
  ] = None
  scale: Annotated[
    float | None,
    tyro.conf.arg(metavar='FLOAT', help_behavior_hint=''),
  ] = None
  size: OptionalInt = None
  step: Step = 'latest'
  width: Width = 1.0
  depth: Depth = 1.0
  ensemble: Ensemble = False
  tile: Annotated[
    int | Literal['auto'], tyro.conf.arg(metavar='{auto}|INT', help_behavior_hint='')
  ] = 'auto'
  bits: Bits = 0
  shard: Shard = ''
  confidence: bool = False
  calibration: OptionalPath = None
  agree: bool = True
  overwrite: bool = False
  debug: Debug = False


@dataclass(frozen=True)
class Demo:
  """Build the page of a model and serve it to browsers on this machine, until Ctrl-C.

  It is the page of `jaxsr export --to web`; served, it uses several threads.

  Attributes:
    port: The port on the loopback interface; 0: any free one.
  """

  checkpoint: Checkpoint = None
  port: int = 8000
  runtime: Runtime = None
  debug: Debug = False
