"""What a network costs, counted from its traced computation: nothing is compiled or run.

- parameters: numbers that are trained.
- MACs: multiply-adds of convolutions and matrix products on one image, as papers count them: of
  each output with a whole kernel, also at the border; interpolation and sums are left out.
- radius: how many low-resolution pixels away, along a row, a pixel can matter; None where it
  matters to the whole image. It is what `config.data.margin` may be set to.
- memory: the most bytes of activations that live at once in inference on one image, computed in
  the order of the trace, elementwise operations in place. Compilers fuse and reorder, so that the
  bytes which a device takes differ.
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

SIDE = 1024  # high-resolution pixels of the film that costs are told for
_PHASES = 8  # neighbours that are marked, since strides and windows treat them differently
_STRIPS = (128, 512, 1024)  # pixels of the strips that are looked at


class Costs(NamedTuple):
  """The costs of a network: see the head of the module."""

  parameters: int
  macs: int
  radius: int | None
  memory: int


class Work(NamedTuple):
  """Multiply-adds, and the bytes that their operands and results have."""

  macs: int
  bytes: int


class Layer(NamedTuple):
  """A module of a network, with what it and the modules inside it cost; `output` is NHWC."""

  name: str
  parameters: int
  macs: int
  output: tuple[int, ...]
  inner: tuple['Layer', ...]


def measure(network: Any) -> Costs:
  """Count what a network costs for a film of 1024x1024."""
  program = _trace(network, _film(network))
  macs = sum(_macs(program, instruction) for instruction in program.instructions)
  return Costs(
    models.count_parameters(_variables(network)),
    macs,
    receptive_radius(network),
    memory.peak(program),
  )


def count(function: Callable, *arguments: Any) -> Work:
  """Count the work of any function without loops, a training step, too.

  Bytes are what its convolutions and matrix products read and write when each is on its own and
  everything else is part of one of them. Raises ValueError for loops.
  """
  program, total = trace(function, *arguments), Work(0, 0)
  for instruction in program.instructions:
    if macs := _macs(program, instruction):
      moved = sum(program.size(value) for value in instruction.inputs + instruction.outputs)
      total = Work(total.macs + macs, total.bytes + moved)
  return total


def layers(network: Any) -> Layer:
  """Count what each module of a network costs, as a tree."""
  program = _trace(network, _film(network))
  macs: dict[tuple[str, ...], int] = {}
  output: dict[tuple[str, ...], tuple[int, ...]] = {}
  for instruction in program.instructions:
    scope = instruction.scope.split('/')
    path = tuple(part for part in scope if part and '.' not in part)[1:]  # '.': of a method
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


def receptive_radius(network: Any) -> int | None:
  """Find how many low-resolution pixels away, along a row, a pixel can matter."""
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
  """Count an instruction's multiply-adds."""
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
