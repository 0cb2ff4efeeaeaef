"""Convert a traced computation to ONNX; what does not depend on the image is computed at once."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsr.analysis.jaxpr import Instruction, Program
from jaxsr.errors import UserError
from jaxsr.export import primitives
from jaxsr.export.graph import Graph, Value

_LARGEST_TABLE = 2**14  # elements: larger ones are computed by the graph, so that files stay small


def convert(
  program: Program, known: Mapping[int, np.ndarray], inputs: Mapping[str, int], *, name: str
) -> Any:
  """Convert a program to ONNX, with some of its inputs known.

  Args:
    program: The computation, traced inside `ops.plain()`.
    known: The values of inputs by their numbers.
    inputs: The numbers of the other inputs by name. All symbolic sizes are those of the first.
    name: The name of the network, for the graph and for messages.

  Returns:
    The ONNX model, with these inputs and the output 'sr', and the names of its kernels with the
    axis of their output channels.

  Raises:
    UserError: The converter does not know a primitive.
  """
  graph = Graph({end: program.shapes[i].shape for end, i in inputs.items()})
  constants = {i: np.asarray(x, program.shapes[i].dtype) for i, x in program.constants.items()}
  values: dict[int, Value] = {**constants, **known, **{i: end for end, i in inputs.items()}}
  for instruction in program.instructions:
    operands = [values[i] for i in instruction.inputs]
    result = program.shapes[instruction.outputs[0]]
    if len(instruction.outputs) == 1 and _is_static(instruction, operands, result):
      found = instruction.bind(*map(jnp.asarray, operands), **instruction.params)
      values[instruction.outputs[0]] = np.asarray(found)
      continue
    shapes = [program.shapes[i] for i in instruction.inputs]
    call = primitives.Call(instruction.params, shapes, result, _label(instruction.scope))
    try:
      outputs = primitives.emit(graph, instruction, call, operands)
    except ValueError as error:
      place = f' in {call.label}' if call.label else ''
      raise UserError(f'{name} cannot be converted to ONNX: {error}{place}') from error
    values |= dict(zip(instruction.outputs, outputs, strict=True))
  (end,) = program.outputs
  model = graph.build(name, values[end], program.shapes[end].shape)
  return model, graph.kernels


def _is_static(instruction: Instruction, inputs: Sequence[Value], result: Any) -> bool:
  """Whether an instruction can be computed now, and its result is not large."""
  if not all(isinstance(x, np.ndarray) for x in inputs) or instruction.name == 'dim_as_value':
    return False
  if not all(isinstance(n, int) for n in result.shape):
    return False
  most = max([_LARGEST_TABLE, *(x.size for x in inputs if isinstance(x, np.ndarray))])
  return int(np.prod(result.shape)) <= most


def _label(scope: str) -> str:
  """Returns the path of a layer: 'EDSR/block_0/conv' without the name of the network."""
  return scope.partition('/')[2] or scope
