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


def convert(program: Program, known: Mapping[int, np.ndarray], *, name: str, lr: int) -> Any:
  """Convert a program whose only unknown input is the image.

  Args:
    program: The computation, traced inside `ops.plain()`.
    known: The values of the other inputs, by their numbers.
    name: The name of the network, for the graph and for messages.
    lr: The number of the image [b, h, w, c], whose sizes may be symbolic.

  Returns:
    The ONNX model, with the input 'lr' and the output 'sr', and the names of its kernels with the
    axis of their output channels.

  Raises:
    UserError: The converter does not know a primitive.
  """
  shape = program.shapes[lr].shape
  graph = Graph('lr', [str(size) for size in shape])
  constants = {i: np.asarray(x, program.shapes[i].dtype) for i, x in program.constants.items()}
  values: dict[int, Value] = {**constants, **known, lr: 'lr'}
  for instruction in program.instructions:
    inputs = [values[i] for i in instruction.inputs]
    result = program.shapes[instruction.outputs[0]]
    if len(instruction.outputs) == 1 and _is_static(instruction, inputs, result):
      found = instruction.bind(*map(jnp.asarray, inputs), **instruction.params)
      values[instruction.outputs[0]] = np.asarray(found)
      continue
    operands = [program.shapes[i] for i in instruction.inputs]
    call = primitives.Call(instruction.params, operands, result, _label(instruction.scope))
    try:
      outputs = primitives.emit(graph, instruction, call, inputs)
    except ValueError as error:
      place = f' in {call.label}' if call.label else ''
      raise UserError(f'{name} cannot be converted to ONNX: {error}{place}') from error
    values |= dict(zip(instruction.outputs, outputs, strict=True))
  (end,) = program.outputs
  model = graph.build(name, values[end], shape=shape, result=program.shapes[end].shape)
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
