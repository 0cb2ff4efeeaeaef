"""Export a model as ONNX."""

from typing import Any

import jax
import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from jaxsr import __version__
from jaxsr.compression import quantize
from jaxsr.export.convert import convert
from jaxsr.export.exportable import Exportable, kind_of

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
  *inputs, lr = program.inputs
  known = {i: np.asarray(x) for i, x in zip(inputs, leaves, strict=True)}
  model, kernels = convert(program, known, name=exportable.model.name, lr=lr)
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

  def __call__(self, lr: np.ndarray) -> np.ndarray:
    return np.asarray(self._session.run(['sr'], {'lr': lr})[0])


def _store(graph: Any, kernels: dict[str, int], precision: str) -> None:
  """Store kernels, which are rounded already, in fewer bits; a node converts each back."""
  nodes, kept = [], []
  for tensor in graph.initializer:
    x = numpy_helper.to_array(tensor)
    if tensor.name not in kernels or x.size < _SMALL:
      kept.append(tensor)
      continue
    kind = kind_of(tensor.name, precision)
    stored = f'{tensor.name}:{kind}'
    if kind == 'float16':
      parts = {stored: x.astype(np.float16)}
      nodes.append(helper.make_node('Cast', [stored], [tensor.name], to=TensorProto.FLOAT))
    else:
      axis = kernels[tensor.name]
      step = np.abs(x).max(axis=tuple(i for i in range(x.ndim) if i != axis)) / quantize.LEVELS
      step = np.where(step > 0, step, 1).astype(np.float32)
      along = step.reshape([-1 if i == axis else 1 for i in range(x.ndim)])
      parts = {stored: np.rint(x / along).astype(np.int8), f'{tensor.name}:step': step}
      nodes.append(helper.make_node('DequantizeLinear', [*parts], [tensor.name], axis=axis))
    kept += [numpy_helper.from_array(value, name) for name, value in parts.items()]
  del graph.initializer[:]
  graph.initializer.extend(kept)
  rest = list(graph.node)
  del graph.node[:]
  graph.node.extend([*nodes, *rest])
