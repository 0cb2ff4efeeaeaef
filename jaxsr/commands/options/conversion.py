"""Options of the commands that convert weights, runs and models to other formats."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxsr.commands.options.shared import (
  Bits,
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

  Attributes:
    model: The network; `jaxsr models` lists them.
    weights: A safetensors file with the tensor names of a public implementation or of jaxsr.
    output: A new folder for the checkpoint.
    scale: The scale factor.
    shuffle_order: The channel order of the pixel shuffle (default: TensorFlow's for tensor names of
      jaxsr, else PyTorch's).
  """

  model: str
  weights: Path
  output: Path
  scale: Literal[2, 3, 4, 8] = 4
  shuffle_order: Annotated[
    Literal['torch', 'tensorflow'] | None,
    tyro.conf.arg(metavar='{torch,tensorflow}', help_behavior_hint=''),
  ] = None
  overrides: Overrides = ()
  debug: Debug = False


@dataclass(frozen=True)
class PackageCommand:
  """Export a run as one folder: averaged weights, config, metrics and a model card.

  The folder can be the `--checkpoint` of `jaxsr evaluate` and `jaxsr upscale`.

  Attributes:
    checkpoint: The folder of a run, of imported weights or of a package.
    output: The new folder, such as checkpoints/NAME.
    data: Images to measure on (default: the metrics of the run's last validation).
    width: A width of a slimmable network. Without width and depth, the package keeps all sizes.
    depth: A depth of a slimmable network.
    calibration: A calibration of the checkpoint, from `jaxsr calibrate` (default: that of a
      package).
    int8: Quantize the weights to 8 bits and measure the loss on `data`.
  """

  checkpoint: Annotated[str, tyro.conf.Positional]
  output: Path
  data: OptionalPath = None
  step: Step = 'latest'
  width: float = 1.0
  depth: float = 1.0
  calibration: OptionalPath = None
  int8: bool = False
  bits: Bits = 0
  debug: Debug = False


@dataclass(frozen=True)
class Export:
  """Write a model as a file for other programs: ONNX, StableHLO, or a page for browsers.

  The file is compared with JAX on two sizes of images before it gets its name.

  Attributes:
    checkpoint: The name of a pretrained model, or the folder of a run or package.
    output: The new file.
    to: 'onnx' for onnxruntime and others; 'stablehlo' for JAX and other users of XLA; 'web' for one
      HTML file that enlarges images in a browser and opens no connection.
    precision: The type that kernels are stored in. The computation is in float32.
    size: Height and width of the images as HxW, for example 256x256 (default: free). SwinIR needs
      it.
    agree: Make results agree with nearly all of their input: reduced by Pillow's bicubic filter,
      they round to it. The file has a second input, `levels`: the largest gray level, 255 or 65535.
  """

  checkpoint: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar='NAME|RUN')]
  output: Path
  to: Literal['onnx', 'stablehlo', 'web']
  precision: Literal['float32', 'float16', 'int8'] = 'float32'
  size: OptionalText = None
  agree: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
  runtime: Runtime = None
  step: Step = 'latest'
  width: Width = 1.0
  depth: Depth = 1.0
  debug: Debug = False
