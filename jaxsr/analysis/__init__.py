"""Costs of a network, counted from its traced computation: nothing is compiled or run.

- parameters: the number of trainable parameters.
- MACs: multiply-adds of convolutions and matrix products on one image, as papers count them: every
  output counts the full kernel, also at the border; interpolation and sums are left out.
- radius: the receptive radius along a row, in low-resolution pixels; None if every pixel depends
  on the entire image. `config.data.margin` may be set to it.
- memory: the peak bytes of activations in inference on one image, in the order of the trace, with
  elementwise operations in place. Compilers fuse and reorder, so the bytes on a device differ.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import models
from jaxsr.analysis import memory, receptive_field
from jaxsr.analysis.jaxpr import Instruction, Program, trace
from jaxsr.ops import INTERPOLATION

SIDE = 1024  # side of the film that costs are counted for, in high-resolution pixels
_PHASES = 8  # adjacent pixels that are tested, since strides and windows treat them differently
_STRIPS = (128, 512, 1024)  # lengths of the strips that are tried, in pixels


class Costs(NamedTuple):
  """The costs of a network: see the docstring of the module."""

  parameters: int
  macs: int
  radius: int | None
  memory: int


class Work(NamedTuple):
  """Multiply-adds, and the bytes of their operands and results."""

  macs: int
  bytes: int


class Layer(NamedTuple):
  """The costs of a module, including the modules inside it; `output` is its shape, NHWC."""

  name: str
  parameters: int
  macs: int
  output: tuple[int, ...]
  inner: tuple['Layer', ...]


def measure(network: Any) -> Costs:
  """Returns the costs of a network for a film of 1024x1024."""
  program = _trace(network, _film(network))
  macs = sum(_macs(program, instruction) for instruction in program.instructions)
  return Costs(
    models.count_parameters(_variables(network)),
    macs,
    receptive_radius(network),
    memory.peak(program),
  )


def count(function: Callable, *arguments: Any) -> Work:
  """Returns the work of any function without loops, for example a training step.

  Bytes are those that its convolutions and matrix products read and write if none of them are
  fused with each other and all other operations are fused with one of them.

  Raises:
    ValueError: If the function contains loops.
  """
  program, total = trace(function, *arguments), Work(0, 0)
  for instruction in program.instructions:
    if macs := _macs(program, instruction):
      moved = sum(program.size(value) for value in instruction.inputs + instruction.outputs)
      total = Work(total.macs + macs, total.bytes + moved)
  return total


def layers(network: Any) -> Layer:
  """Returns the costs of each module of a network, as a tree."""
  program = _trace(network, _film(network))
  macs: dict[tuple[str, ...], int] = {}
  output: dict[tuple[str, ...], tuple[int, ...]] = {}
  for instruction in program.instructions:
    scope = instruction.scope.split('/')
    path = tuple(part for part in scope if part and '.' not in part)[1:]  # '.': a method
    macs[path] = macs.get(path, 0) + _macs(program, instruction)
    for length in range(len(path) + 1):
      output[path[:length]] = program.shapes[instruction.outputs[0]].shape
  params = _variables(network).get('params', {})
  return _layer(type(network).__name__, (), params, macs, output)


def _layer(name: str, path: tuple[str, ...], params: Any, macs: dict, output: dict) -> Layer:
  names = [p[len(path)] for p in output if len(p) == len(path) + 1 and p[: len(path)] == path]
  names = [n for n in names if n in params]
  inner = tuple(_layer(n, (*path, n), params[n], macs, output) for n in names)
  total = sum(count for p, count in macs.items() if p[: len(path)] == path)
  count = models.count_parameters({'params': params})
  return Layer(name, count, total, output[path], inner)


def activation_bytes(network: Any) -> float:
  """Returns the peak bytes of activations in inference, per low-resolution pixel of the image."""
  shape = (1, 64, 64, network.channels)
  return memory.peak(_trace(network, shape)) / (shape[1] * shape[2])


def receptive_radius(network: Any) -> int | None:
  """Returns the receptive radius along a row, in low-resolution pixels, or None if unbounded."""
  for length in _STRIPS:
    strip = (_PHASES, 1, length, network.channels)
    program = _trace(network, strip)
    pixels = length // 2 + np.arange(_PHASES)
    marks = np.zeros(strip, bool)
    marks[np.arange(_PHASES), :, pixels] = True
    (found,) = receptive_field.run(program, {program.inputs[-1]: marks})
    columns = np.any(found, (1, 3)).reshape(_PHASES, length, -1)
    columns = np.any(columns, -1)  # at low resolution
    if not (columns[:, 0].any() or columns[:, -1].any()):
      image, column = np.nonzero(columns)
      return int(np.abs(column - pixels[image]).max())
  return None


def _film(network: Any) -> tuple[int, ...]:
  side = SIDE // network.scale
  return (1, side, side, network.channels)


def _trace(network: Any, image: tuple[int, ...]) -> Program:
  """Trace inference; the image is the last of the program's inputs."""
  apply = lambda variables, lr: network.apply(variables, lr, train=False)  # noqa: E731
  return trace(apply, _variables(network), jax.ShapeDtypeStruct(image, jnp.float32))


_variables = functools.lru_cache(maxsize=1)(models.shapes)


def _macs(program: Program, instruction: Instruction) -> int:
  """Returns the multiply-adds of an instruction."""
  if INTERPOLATION in instruction.scope.split('/'):
    return 0
  if instruction.name == 'conv_general_dilated':
    numbers, dilation = (instruction.params[k] for k in ('dimension_numbers', 'lhs_dilation'))
    kernel = program.shapes[instruction.inputs[1]].shape
    taps = int(np.prod([kernel[i] for i in numbers.rhs_spec[1:]]))
    return program.elements(instruction.outputs[0]) * taps // int(np.prod(dilation))
  if instruction.name == 'dot_general':
    (contracted, _), _ = instruction.params['dimension_numbers']
    left = program.shapes[instruction.inputs[0]].shape
    return program.elements(instruction.outputs[0]) * int(np.prod([left[i] for i in contracted]))
  return 0
