"""The options of every command: what `jaxsr --help` and `jaxsr COMMAND --help` show.

This module imports nothing heavy, so that help and mistakes take no time. `jaxsr.cli` imports the
module that runs a command when that command is called.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar='PATH', help_behavior_hint='')]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar='TEXT', help_behavior_hint='')]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar='INT', help_behavior_hint='')]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar='FLOAT', help_behavior_hint='')]
Overrides = tyro.conf.Suppress[tuple[str, ...]]  # `--config.KEY=VALUE`, which `jaxsr.cli` fills in
DataSet = Annotated[Literal['nih'], tyro.conf.Positional]

# Options that several commands have.
_CHECKPOINT = (
  "A run's or a package's folder, a package's name, 'bicubic', 'lanczos' or 'back_projection' "
  '(default: the pretrained model for the scale).'
)
_SCALE = "2, 3, 4 or 8 (default: the model's own, or 4)."
Checkpoint = Annotated[
  str | None, tyro.conf.arg(metavar='TEXT', help=_CHECKPOINT, help_behavior_hint='')
]
Scale = Annotated[int | None, tyro.conf.arg(metavar='INT', help=_SCALE, help_behavior_hint='')]
Step = Annotated[str, tyro.conf.arg(help="The checkpoint of a run: 'latest', 'best' or a step.")]
Width = Annotated[float, tyro.conf.arg(help='A width that a slimmable network was trained at.')]
Depth = Annotated[float, tyro.conf.arg(help='A depth that a slimmable network was trained at.')]
Ensemble = Annotated[
  bool,
  tyro.conf.arg(help='Average over the eight flips and rotations, at eight times the cost.'),
]
Bits = Annotated[
  int, tyro.conf.arg(help='The bit depth of 16-bit files without a tag, such as 12; 0: trust them.')
]
Shard = Annotated[
  str,
  tyro.conf.arg(
    metavar='I/N',
    help='Only part I of N of the images, divided by the SHA-256 of their names; "slurm" reads I '
    'and N from the variables of a job array or of srun.',
  ),
]
_RUNTIME = (
  'A folder with the archives of `npm pack` for the libraries of the page '
  '(default: npm downloads them once).'
)
Runtime = Annotated[Path | None, tyro.conf.arg(metavar='DIR', help=_RUNTIME, help_behavior_hint='')]
Debug = Annotated[bool, tyro.conf.arg(help='Show the traceback of an error.')]


@dataclass(frozen=True)
class Upscale:
  """Enlarge images. File names, folders, format, bit depth and value range are kept.

  Results that the same network made from the same file are skipped.
  """

  inputs: Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar='IMAGE|FOLDER|PATTERN ...', help_behavior_hint=''),
  ]
  """Images, folders (searched recursively), or patterns such as 'images/*.png'."""
  checkpoint: Checkpoint = None
  output: OptionalPath = None
  """A file for one image, otherwise a folder (default: NAME_x4 beside each input)."""
  format: Literal['same', 'png', 'dicom'] = 'same'
  """'same': DICOM becomes DICOM, derived from the source, in its study and a new series; PNG, TIFF
  and JPEG stay; other formats become PNG."""
  compress: Annotated[
    Literal['none', 'jpegls', 'j2k'] | None,
    tyro.conf.arg(metavar='{none,jpegls,j2k}', help_behavior_hint=''),
  ] = None
  """Compress DICOM without loss by JPEG-LS or JPEG 2000 (default: JPEG-LS for more than 32 MB)."""
  scale: Annotated[
    float | None,
    tyro.conf.arg(metavar='FLOAT', help_behavior_hint=''),
  ] = None
  """Above 1, up to 8 (default: the model's own, or 4). If there is no network of this scale, the
  next larger one enlarges and Pillow's bicubic filter reduces."""
  size: OptionalInt = None
  """The longer side of the results in pixels, instead of a scale."""
  step: Step = 'latest'
  width: Width = 1.0
  depth: Depth = 1.0
  ensemble: Ensemble = False
  tile: Annotated[
    int | Literal['auto'], tyro.conf.arg(metavar='{auto}|INT', help_behavior_hint='')
  ] = 'auto'
  """The side of a tile in low-resolution pixels. Larger images are processed in overlapping tiles,
  which needs less memory and gives the same result up to rounding (default: auto, at most 512, and
  half of it whenever memory runs out)."""
  bits: Bits = 0
  shard: Shard = ''
  confidence: bool = False
  """Also write NAME_interval.png, half the width of the 90 % interval of each pixel in gray levels,
  and NAME_doubt.png, white where the error may be large; beside DICOM, both are DICOM of the same
  series."""
  calibration: OptionalPath = None
  """A calibration from `jaxsr calibrate` (default: that of the package)."""
  agree: bool = True
  """Change the result so that Pillow's bicubic reduction of it is the input again. Interpolations,
  and networks for noisy images, never do."""
  overwrite: bool = False
  """Recompute existing results. Files that jaxsr did not write are never replaced."""
  debug: Debug = False


@dataclass(frozen=True)
class Evaluate:
  """Measure a network on full-size images, next to bicubic interpolation."""

  data: Path
  """A folder of high-resolution images (searched recursively), an image, or a folder of records."""
  output: Path
  """The folder for per_image.csv, summary.json, contact_sheet.png and report.html."""
  lr: OptionalPath = None
  """A folder with the low resolution of each image, under equal names (default: computed)."""
  checkpoint: Checkpoint = None
  protocol: Literal['xray', 'luma'] = 'xray'
  """How images become pairs: 'xray' for radiographs, 'luma' for natural images."""
  scale: Scale = None
  step: Step = 'latest'
  width: Width = 1.0
  depth: Depth = 1.0
  ensemble: Ensemble = False
  agree: bool = True
  """Measure what `jaxsr upscale` writes; bicubic is made to agree as well. summary.json also holds
  the figures without (raw_psnr, bicubic_raw_psnr, ...)."""
  bits: Bits = 0
  split: str = 'test'
  """The split of records to measure: SPLIT or SPLIT/FINDING."""
  shard: Shard = ''
  tables: OptionalPath = None
  """A folder with NIH's Data_Entry_2017*.csv and BBox_List_2017.csv, for results by subgroup."""
  conditions: str = ''
  """Also measure noisy, blurred and compressed inputs: 'all', or names such as low_dose,jpeg75.
  Writes conditions.csv and conditions.png. Run the same command again to resume."""
  beside: tuple[str, ...] = ()
  """Further checkpoints in the table by condition."""
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
  debug: Debug = False


@dataclass(frozen=True)
class Compare:
  """Measure several networks on the same images: one table, and one page with all of them."""

  checkpoints: Annotated[
    tuple[str, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar='CHECKPOINT ...', help_behavior_hint=''),
  ]
  """Folders of runs or packages, names of packages, 'bicubic', 'lanczos' or 'back_projection'."""
  data: Path
  """A folder of high-resolution images (searched recursively), an image, or a folder of records."""
  output: Path
  """The folder for compare.csv, compare_per_image.csv and report.html."""
  protocol: Literal['xray', 'luma'] = 'xray'
  """How images become pairs: 'xray' for radiographs, 'luma' for natural images."""
  scale: Scale = None
  agree: bool = True
  """Make all results, and bicubic's, agree with their input, as `jaxsr upscale` does; the figures
  without are in the rows "raw"."""
  ensemble: Ensemble = False
  bits: Bits = 0
  split: str = 'test'
  """The split of records to measure: SPLIT or SPLIT/FINDING."""
  tables: OptionalPath = None
  """A folder with NIH's Data_Entry_2017*.csv and BBox_List_2017.csv, for results by subgroup."""
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


@dataclass(frozen=True)
class Train:
  """Train and validate a network. Run the same command again to resume.

  `--config.KEY=VALUE` changes a setting, for example `--config.data.train=FOLDER`. All settings,
  their defaults and their meanings are in `base()` in jaxsr/config/__init__.py; `jaxsr models`
  lists the networks. `python main.py` takes the same options.
  """

  config: OptionalText = None
  """A config file, or the name of a shipped one such as `rdn`; `rdn:smoke` is a short test."""
  workdir: OptionalPath = None
  """The folder of the run: checkpoints, metrics and TensorBoard logs."""
  allow_config_change: bool = False
  """Resume although the config has changed."""
  restart: bool = False
  """Begin again; the files of an earlier run move to a folder `before_restart_N` in its folder."""
  distributed: bool = False
  """Train on several hosts (jax.distributed)."""
  coordinator: OptionalText = None
  """HOST:PORT of process 0, if no scheduler provides it."""
  processes: OptionalInt = None
  """The number of hosts, if no scheduler provides it."""
  process: OptionalInt = None
  """The number of this host, counted from 0, if no scheduler provides it."""
  overrides: Overrides = ()
  debug: Debug = False


@dataclass(frozen=True)
class Models:
  """List the networks and their cost for one image of 1024x1024, from the traced computation.

  With a name, also the cost of each layer. `--config.model.KEY=VALUE` sets an option of the
  network; other settings work as well, such as `--config.precision=bfloat16`.
  """

  name: Annotated[
    str | None, tyro.conf.Positional, tyro.conf.arg(metavar='NAME', help_behavior_hint='')
  ] = None
  """A network (default: all networks)."""
  scale: Literal[2, 3, 4, 8] = 4
  """The scale factor."""
  channels: Literal[1, 3] = 1
  """1 for grayscale, 3 for RGB."""
  width: float = 1.0
  """Multiplies the number of features, in (0, 1]."""
  depth: float = 1.0
  """Multiplies the number of blocks, in (0, 1]."""
  overrides: Overrides = ()
  debug: Debug = False


@dataclass(frozen=True)
class Import:
  """Convert published PyTorch weights (safetensors) to a checkpoint for `evaluate` and `upscale`.

  Width, depth and channels are read from the tensors. `--config.model.KEY=VALUE` sets options that
  the tensors do not determine, such as `residual_scaling` or `padding`.
  """

  model: str
  """The network; `jaxsr models` lists them."""
  weights: Path
  """A safetensors file with the tensor names of a public implementation or of jaxsr."""
  output: Path
  """A new folder for the checkpoint."""
  scale: Literal[2, 3, 4, 8] = 4
  """The scale factor."""
  shuffle_order: Annotated[
    Literal['torch', 'tensorflow'] | None,
    tyro.conf.arg(metavar='{torch,tensorflow}', help_behavior_hint=''),
  ] = None
  """The channel order of the pixel shuffle (default: TensorFlow's for tensor names of jaxsr, else
  PyTorch's)."""
  overrides: Overrides = ()
  debug: Debug = False


@dataclass(frozen=True)
class Compress:
  """Train students of several sizes with several objectives, and compare them with their teacher.

  Each trial is a run of its own; the same command continues with the unfinished ones.
  `--config.KEY=VALUE` changes a setting. Writes study.csv, study.html and plots.
  """

  config: str
  """A config file with a section `study`, or its name, such as `compress`."""
  workdir: Path
  """The folder of the study."""
  parallel: int = 0
  """Number of trials to run at the same time; 0: one per GPU, or one."""
  overrides: Overrides = ()
  debug: Debug = False


@dataclass(frozen=True)
class PackageCommand:
  """Export a run as one folder: averaged weights, config, metrics and a model card.

  `jaxsr evaluate` and `jaxsr upscale` take the folder as `--checkpoint`.
  """

  checkpoint: Annotated[str, tyro.conf.Positional]
  """The folder of a run, of imported weights or of a package."""
  output: Path
  """The new folder, such as checkpoints/NAME."""
  data: OptionalPath = None
  """Images to measure on (default: the metrics of the run's last validation)."""
  step: Step = 'latest'
  width: float = 1.0
  """A width of a slimmable network. Without width and depth, the package keeps all sizes."""
  depth: float = 1.0
  """A depth of a slimmable network."""
  calibration: OptionalPath = None
  """A calibration of the checkpoint, from `jaxsr calibrate` (default: that of a package)."""
  int8: bool = False
  """Quantize the weights to 8 bits and measure the loss on `data`."""
  debug: Debug = False


@dataclass(frozen=True)
class Export:
  """Write a model as a file for other programs: ONNX, StableHLO, or a page for browsers.

  The file is compared with JAX on two sizes of images before it gets its name.
  """

  checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar='NAME|RUN')]
  """The name of a pretrained model, or the folder of a run or package."""
  output: Path
  """The new file."""
  to: Literal['onnx', 'stablehlo', 'web']
  """'onnx' for onnxruntime and others; 'stablehlo' for JAX and other users of XLA; 'web' for one
  HTML file that enlarges films in a browser and opens no connection."""
  precision: Literal['float32', 'float16', 'int8'] = 'float32'
  """The type that kernels are stored in. The computation is in float32."""
  size: OptionalText = None
  """Height and width of the images as HxW, for example 256x256 (default: free). SwinIR needs it."""
  agree: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  """Make results agree with nearly all of their input: reduced by Pillow's bicubic filter, they
  round to it. The file has a second input, `levels`: the largest gray level, 255 or 65535."""
  runtime: Runtime = None
  step: Step = 'latest'
  width: Width = 1.0
  depth: Depth = 1.0
  debug: Debug = False


@dataclass(frozen=True)
class Demo:
  """Build the page of a model and serve it to browsers on this machine, until Ctrl-C.

  It is the page of `jaxsr export --to web`; served, it uses several threads.
  """

  checkpoint: Checkpoint = None
  port: int = 8000
  """The port on the loopback interface; 0: any free one."""
  runtime: Runtime = None
  debug: Debug = False


@dataclass(frozen=True)
class Phantom:
  """Write computer-drawn chest radiographs for tests and demonstrations."""

  output: Path
  """The folder to write to."""
  count: int = 8
  """The number of images."""
  seed: int = 0
  """The random seed."""
  start: int = 0
  """The number of the first image."""
  size: int = 1024
  """The side of an image in pixels, a multiple of 8."""
  bits: Literal[8, 16] = 8
  """Bits per pixel."""
  debug: Debug = False


@dataclass(frozen=True)
class Degrade:
  """Simulate low-resolution images as a detector, a low dose or an archive produces them.

  The noise of an image depends on its file name and the condition only.
  """

  data: Annotated[Path, tyro.conf.Positional]
  """An image or a folder of images."""
  output: Path
  """The folder to write PNG files to."""
  condition: str = 'low_dose'
  """clean, binned, blurred, low_dose, very_low_dose, jpeg75, jpeg50, archive or mixed."""
  dose: OptionalFloat = None
  """The dose relative to the usual one (default: that of the condition)."""
  scale: int = 4
  """The factor of the reduction."""
  debug: Debug = False


@dataclass(frozen=True)
class Doctor:
  """Check the installation: versions, devices, optional packages, pretrained models, disk.

  The exit code is 1 if a check fails.
  """

  output: Path = Path('.')
  """The folder in which the write test is made."""
  debug: Debug = False


@dataclass(frozen=True)
class Download:
  """Download the twelve archives (42 GB). Run the same command again to resume."""

  dataset: DataSet
  """The data set: nih."""
  output: Path
  """The folder for the archives."""
  from_dir: OptionalPath = None
  """A folder that already holds the archives: they are checked and copied."""
  mirror: OptionalText = None
  """The address of a mirror that has the archives under their original names."""
  jobs: int = 4
  """The number of parallel downloads."""
  debug: Debug = False


@dataclass(frozen=True)
class Verify:
  """List what is missing from a copy or damaged: the archives, a Kaggle copy or another layout."""

  dataset: DataSet
  """The data set: nih."""
  data: Annotated[Path, tyro.conf.Positional]
  """The folder of the copy."""
  decode: bool = True
  """Decode every image; otherwise check only sums, names and tables."""
  debug: Debug = False


@dataclass(frozen=True)
class Prepare:
  """Check every image once and write records. Run the same command again to resume."""

  dataset: DataSet
  """The data set: nih."""
  data: Annotated[Path, tyro.conf.Positional]
  """The folder of the copy: archives, a flat folder, or images_*/images/."""
  output: Path
  """The folder for the records."""
  labels: tuple[str, ...] = ()
  """Keep only images with one of these findings ('No Finding' is one)."""
  form: Literal['raw', 'zstd', 'png'] = 'raw'
  """What a record stores: decoded pixels, compressed pixels, or the original file."""
  scale: int = 4
  """The scale of the stored low-resolution images; other scales are computed during training."""
  validation: float = 0.05
  """The share of the patients outside the test set that is used for validation."""
  test: float = 0.1
  """The share of the patients in the test set, if the published lists are missing."""
  seed: int = 0
  """The random seed of the split."""
  runner: str = 'DirectRunner'
  """The Beam runner."""
  workers: int = 0
  """Worker processes of the DirectRunner (default: one per core)."""
  beam: tuple[str, ...] = ()
  """More Beam options, as in --beam flink_master=HOST:PORT environment_type=LOOPBACK."""
  debug: Debug = False


@dataclass(frozen=True)
class Inspect:
  """Summarize a folder of records: splits, patients, findings."""

  records: Annotated[Path, tyro.conf.Positional]
  """The folder of the records."""
  read: bool = False
  """Read every record and list the damaged ones."""
  debug: Debug = False


@dataclass(frozen=True)
class Hash:
  """Write the SHA-256 of every image of a folder, or compare with those written before.

  `jaxsr train` and `jaxsr evaluate` check each image that they read against `SHA256SUMS` in the
  folder; `sha256sum -c` checks all of them.
  """

  data: Annotated[Path, tyro.conf.Positional]
  """The folder of the images, read recursively."""
  overwrite: bool = False
  """Write the sums again, of the images as they are now."""
  debug: Debug = False


DATA_ACTIONS: list[type] = [Download, Verify, Prepare, Inspect, Hash]
DataAction = (
  Annotated[Download, tyro.conf.subcommand('download')]
  | Annotated[Verify, tyro.conf.subcommand('verify')]
  | Annotated[Prepare, tyro.conf.subcommand('prepare')]
  | Annotated[Inspect, tyro.conf.subcommand('inspect')]
  | Annotated[Hash, tyro.conf.subcommand('hash')]
)


@dataclass(frozen=True)
class Data:
  """Download, check and convert NIH ChestX-ray14; hash a folder of images."""

  action: DataAction

  @property
  def debug(self) -> bool:
    """Whether to show the traceback of an error."""
    return self.action.debug
