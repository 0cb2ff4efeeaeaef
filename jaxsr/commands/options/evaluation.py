"""Options of the commands that measure networks on images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsr.commands.options.shared import (
  Bits,
  Checkpoint,
  Debug,
  Depth,
  OptionalPath,
  OptionalText,
  Scale,
  Shard,
  Step,
  Width,
)
from jaxsr.evaluation.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class _Measure(Measurement):
  """What else the commands that measure networks share. `output` has a text for each command."""

  output: Path
  tables: OptionalPath = None
  scale: Scale = None
  trust: bool = False
  """Audit the output for detail that is not in the films: trust.csv, trust.json and the page. Run
  the same command again to resume."""
  lesions: bool = False
  """Put lesions into the films and measure how well they are seen afterwards: lesions.csv."""
  reader: str = ''
  """A classifier of findings, an ONNX file or MODULE:FUNCTION, that is asked about the films and
  the output: readers.csv. Needs --tables or records."""
  reader_config: OptionalPath = None
  """A JSON file with the reader's findings and the size of its input."""
  debug: Debug = False


@dataclass(frozen=True, kw_only=True)
class Evaluate(_Measure):
  """Measure a network on full-size images, next to bicubic interpolation."""

  output: Path
  """The folder for per_image.csv, summary.json, contact_sheet.png and report.html."""
  lr: OptionalPath = None
  """A folder with the low resolution of each image, under equal names (default: computed)."""
  checkpoint: Checkpoint = None
  step: Step = 'latest'
  width: Width = 1.0
  depth: Depth = 1.0
  shard: Shard = ''
  conditions: str = ''
  """Also measure noisy, blurred and compressed inputs: 'all', or names such as low_dose,jpeg75.
  Writes conditions.csv and conditions.png. Run the same command again to resume."""
  beside: tuple[str, ...] = ()
  """Further checkpoints in the table by condition."""
  features: Annotated[
    Literal['mobilenet_v2', 'vgg16', 'vgg19'] | None,
    tyro.conf.arg(metavar='{mobilenet_v2,vgg16,vgg19}', help_behavior_hint=''),
  ] = None
  """Also measure the feature distance to the true image, with this network."""
  feature_layer: OptionalText = None
  """The layer of the feature network (default: the one used in training)."""
  feature_weights: str = ''
  """The weights of the feature network, a safetensors or npz file (default: the published ones,
  downloaded once)."""


@dataclass(frozen=True, kw_only=True)
class Compare(_Measure):
  """Measure several networks on the same images: one table, and one page with all of them."""

  checkpoints: Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar='CHECKPOINT ...', help_behavior_hint=''),
  ]
  """Folders of runs or packages, names of packages, 'bicubic', 'lanczos' or 'back_projection'."""
  output: Path
  """The folder for compare.csv, compare_per_image.csv and report.html."""


@dataclass(frozen=True)
class Calibrate:
  """Calibrate the intervals and the doubt of a network on films that it was not trained on.

  Half of the patients fit the width of the intervals, the others choose its factor; all choose the
  threshold of doubt. Writes calibration.json, for `jaxsr upscale --confidence` and `jaxsr package`.
  """

  data: Path
  """A folder of high-resolution images (searched recursively), or a folder of records."""
  output: Path
  """The folder for calibration.json."""
  checkpoint: Checkpoint = None
  test: OptionalPath = None
  """Images of further patients, on which intervals and doubt are measured."""
  tables: OptionalPath = None
  """A folder with NIH's Data_Entry_2017*.csv, for coverage by finding, view, sex and age."""
  second: OptionalText = None
  """A second network, such as edsr_x4_small: doubt is where the two disagree (default: where the
  network differs from bicubic interpolation)."""
  coverage: float = 0.9
  """The share of the pixels that intervals contain."""
  rule: Literal['mean', 'crc', 'rcps'] = 'mean'
  """How the factor is chosen: by the mean coverage of the patients, by conformal risk control, or
  with a confidence of 90 %."""
  bad: float = 4.0
  """The root mean square error, in 8-bit gray levels, above which a tile of 16x16 is bad."""
  missed: float = 0.1
  """The share of an image's bad tiles that may be missed."""
  train: tuple[Path, ...] = ()
  """Folders with the training images, if the checkpoint does not list them."""
  allow_training: bool = False
  """Use images that the network was trained on. The calibration says so."""
  agree: bool = True
  """Calibrate results that agree with their input, as `jaxsr upscale` writes them."""
  step: Step = 'latest'
  split: str = 'test'
  """The split of records."""
  bits: Bits = 0
  debug: Debug = False
