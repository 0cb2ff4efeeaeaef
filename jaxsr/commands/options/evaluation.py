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
  """Further options that the commands that measure networks share.

  Attributes:
    trust: Audit the output for detail that is not in the images: trust.csv, trust.png, trust.json
      and the page. Run the same command again to resume.
    lesions: Insert lesions into the images and measure how well they are seen afterward:
      lesions.csv.
    reader: A classifier of findings, an ONNX file or MODULE:FUNCTION, to apply to the images and
      the output: readers.csv. Non-inferiority has a margin of 0.01 of AUROC. Needs --tables or
      records.
    reader_config: A JSON file with the reader's findings and the size of its input.
  """

  output: Path
  tables: OptionalPath = None
  scale: Scale = None
  trust: bool = False
  lesions: bool = False
  reader: str = ''
  reader_config: OptionalPath = None
  debug: Debug = False


@dataclass(frozen=True, kw_only=True)
class Evaluate(_Measure):
  """Measure a network on full-size images, next to bicubic interpolation.

  Attributes:
    output: The folder for per_image.csv, summary.json, contact_sheet.png and report.html.
    lr: A folder with the low resolution of each image, under equal names (default: computed).
    conditions: Also measure noisy, blurred and compressed inputs: 'all', or names such as
      low_dose,jpeg75. Writes conditions.csv and conditions.png. Run the same command again to
      resume.
    beside: Further checkpoints in the table by condition.
    features: Also measure the feature distance to the true image, with this network.
    feature_layer: The layer of the feature network (default: the one used in training).
    feature_weights: The weights of the feature network, a safetensors or npz file (default: the
      published ones, downloaded once).
  """

  output: Path
  lr: OptionalPath = None
  checkpoint: Checkpoint = None
  step: Step = 'latest'
  width: Width = 1.0
  depth: Depth = 1.0
  shard: Shard = ''
  conditions: str = ''
  beside: tuple[str, ...] = ()
  features: Annotated[
    Literal['mobilenet_v2', 'vgg16', 'vgg19'] | None,
    tyro.conf.arg(metavar='{mobilenet_v2,vgg16,vgg19}', help_behavior_hint=''),
  ] = None
  feature_layer: OptionalText = None
  feature_weights: str = ''


@dataclass(frozen=True, kw_only=True)
class Compare(_Measure):
  """Measure several networks on the same images: one table, and one page with all of them.

  Attributes:
    checkpoints: Folders of runs or packages, names of packages, 'bicubic', 'lanczos' or
      'back_projection'.
    output: The folder for compare.csv, compare_per_image.csv and report.html.
  """

  checkpoints: Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar='CHECKPOINT ...', help_behavior_hint=''),
  ]
  output: Path


@dataclass(frozen=True)
class Calibrate:
  """Calibrate the intervals and the doubt of a network on images that it was not trained on.

  Half of the patients fit the width of the intervals, the others choose its factor; all choose the
  threshold of doubt. Writes calibration.json, for `jaxsr upscale --confidence` and `jaxsr package`.

  Attributes:
    data: A folder of high-resolution images (searched recursively), or a folder of records.
    output: The folder for calibration.json.
    test: Images of further patients, on which intervals and doubt are measured.
    tables: A folder with NIH's Data_Entry_2017*.csv, for coverage by finding, view, sex and age.
    conditions: How the low resolution is made: 'all', or names such as clean,low_dose (default:
      clean, or all if the network was trained for noisy images). Coverage is also given for each.
    second: A second network, such as edsr_x4_small: doubt is where the two disagree (default: where
      the network differs from bicubic interpolation).
    coverage: The share of the pixels that intervals contain.
    rule: How the factor is chosen: by the mean coverage of the patients, by conformal risk control,
      or with a confidence of 90 %.
    bad: The root mean square error, in 8-bit gray levels, above which a tile of 16x16 is bad.
    missed: The share of an image's bad tiles that may be missed.
    train: Folders with the training images, if the checkpoint does not list them.
    allow_training: Use images that the network was trained on. The calibration says so.
    agree: Calibrate results that agree with their input, as `jaxsr upscale` writes them.
    split: The split of records.
  """

  data: Path
  output: Path
  checkpoint: Checkpoint = None
  test: OptionalPath = None
  tables: OptionalPath = None
  conditions: str = ''
  second: OptionalText = None
  coverage: float = 0.9
  rule: Literal['mean', 'crc', 'rcps'] = 'mean'
  bad: float = 4.0
  missed: float = 0.1
  train: tuple[Path, ...] = ()
  allow_training: bool = False
  agree: bool = True
  step: Step = 'latest'
  split: str = 'test'
  bits: Bits = 0
  debug: Debug = False
