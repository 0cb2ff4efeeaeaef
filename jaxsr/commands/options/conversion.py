"""Options of the commands that convert weights, runs and models to other formats."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsr.commands.options.shared import (
  Debug,
  Depth,
  OptionalPath,
  OptionalText,
  Overrides,
  Runtime,
  Step,
  Width,
)


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
