"""Export a model as ONNX."""

import math
from typing import Any

import jax
import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from jaxsr import __version__
from jaxsr.export.convert import convert
from jaxsr.export.exportable import Exportable
from jaxsr.export.rounding import is_spatial, steps

_SMALL = 64  # elements: rounding less than this would save nothing


def serialize(exportable: Exportable) -> tuple[bytes, float]:
  """Convert a model and run the result in onnxruntime beside JAX.

  Returns:
    The content of the file, and the largest difference relative to the largest value.

  Raises:
    UserError: The network has a primitive that the converter does not know.
    MismatchError: The result differs from JAX.
  """
  program = exportable.trace()
  leaves = jax.tree.leaves(exportable.model.variables)
  weights, others = program.inputs[: len(leaves)], program.inputs[len(leaves) :]
  known = {i: np.asarray(x) for i, x in zip(weights, leaves, strict=True)}
  inputs = dict(zip(exportable.inputs, others, strict=True))
  model, kernels = convert(program, known, inputs, name=exportable.model.name)
  if exportable.precision != 'float32':
    _store(model.graph, kernels, exportable.precision)
  model.producer_name, model.producer_version = 'jaxsr', __version__
  helper.set_model_props(model, exportable.facts)
  checker.check_model(model, full_check=True)
  content = model.SerializeToString()
  return content, exportable.check(_Session(content))


class _Session:
  """Runs the content of an ONNX file."""

  def __init__(self, content: bytes):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    cpu = ['CPUExecutionProvider']
    self._session = onnxruntime.InferenceSession(content, options, providers=cpu)

  def __call__(self, *inputs: np.ndarray) -> np.ndarray:
    names = [end.name for end in self._session.get_inputs()]
    given = dict(zip(names, map(np.asarray, inputs), strict=True))
    return np.asarray(self._session.run(['sr'], given)[0])


def _store(graph: Any, kernels: dict[str, int], precision: str) -> None:
  """Store kernels, which are rounded already, in fewer bits; nodes convert them back."""
  nodes, kept = [], []
  for tensor in graph.initializer:
    x = numpy_helper.to_array(tensor)
    if tensor.name in kernels and x.size >= _SMALL:
      parts = _parts(x, precision, kernels[tensor.name])
    else:
      parts = {}
    if not parts:
      kept.append(tensor)
      continue
    names = [f'{tensor.name}:{part}' for part in parts]
    full = [f'{name}:float32' for name in names] if len(parts) > 1 else [tensor.name]
    for name, end in zip(names, full, strict=True):
      nodes.append(helper.make_node('Cast', [name], [end], to=TensorProto.FLOAT))
    if len(parts) > 1:
      nodes.append(helper.make_node('Mul', full, [tensor.name]))
    kept += [
      numpy_helper.from_array(x, name) for x, name in zip(parts.values(), names, strict=True)
    ]
  del graph.initializer[:]
  graph.initializer.extend(kept)
  rest = list(graph.node)
  del graph.node[:]
  graph.node.extend([*nodes, *rest])


def _parts(x: np.ndarray, precision: str, channels: int) -> dict[str, np.ndarray]:
  """Returns the tensors whose product is a rounded kernel; none if it is no rounded kernel.

  With 'int8', some kernels are float16. `channels` is the axis of the output channels; a kernel's
  spatial axes follow the second one.
  """
  found = {'float16': x.astype(np.float16)}
  if precision == 'int8':
    others = (i for i in range(x.ndim) if i != channels)
    step = steps(x, tuple(range(2, x.ndim)) if is_spatial(x.shape[2:]) else tuple(others))
    parts = {'int8': np.rint(x / step).astype(np.int8), 'step': step.astype(np.float16)}
    if np.array_equal(math.prod(part.astype(np.float32) for part in parts.values()), x):
      return parts
  return found if np.array_equal(found['float16'].astype(np.float32), x) else {}
