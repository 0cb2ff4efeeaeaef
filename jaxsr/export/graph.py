"""Build an ONNX graph node by node, with sizes of arrays that may be symbolic.

A value of the computation is a NumPy array if it is known, else the name of a value of the graph,
or `Spread`: a smaller value that ONNX broadcasts by itself wherever an operation allows it.
Integers are int64, the only type that ONNX has for shapes.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8  # of ONNX 1.12, the first that has the opset

_OPERATORS = {ast.Add: 'Add', ast.Sub: 'Sub', ast.Mult: 'Mul', ast.Pow: 'Pow'}
_EXTREMES = {'max': 'Max', 'min': 'Min'}


class Spread(NamedTuple):
  """A value with axes of length 1, and the shape that it stands for."""

  value: 'np.ndarray | str'
  shape: tuple[Any, ...]


Value = np.ndarray | str | Spread


class Graph:
  """The nodes and constants of a graph with inputs of given shapes.

  Symbolic sizes are those of the first input, computed when the graph runs.

  Attributes:
    nodes: the nodes in order.
    constants: the constants by name.
    kernels: the names of the constants that are kernels, with the axis of their output channels.
  """

  def __init__(self, inputs: Mapping[str, Sequence[Any]]):
    self.nodes: list[Any] = []
    self.constants: dict[str, np.ndarray] = {}
    self.kernels: dict[str, int] = {}
    self._inputs = dict(inputs)
    self._axes = list(map(str, next(iter(inputs.values()))))
    self._known: dict[tuple, str] = {}
    self._sizes: dict[str, str] = {}

  def add(self, operator: str, *inputs: Value, **attributes: Any) -> str:
    """Append a node; returns the name of its output."""
    names = [self.name(each) for each in inputs]  # first, since it may append nodes
    output = f'v{len(self.nodes)}'
    self.nodes.append(helper.make_node(operator, names, [output], **attributes))
    return output

  def name(self, value: Value, *, label: str = '') -> str:
    """Returns the name of a value; makes a constant of an array, called `label` if given."""
    if isinstance(value, str):
      return value
    if isinstance(value, Spread):
      return self.add('Expand', value.value, self.shape(value.shape))
    if value.dtype.kind in 'iu':
      value = value.astype(np.int64)
    key = (value.dtype.str, value.shape, value.tobytes())
    if key not in self._known:
      taken = label in self.constants  # by another constant of the same layer
      name = f'{label}_{len(self.constants)}' if taken else label
      self._known[key] = name or f'c{len(self.constants)}'
      self.constants[self._known[key]] = value
    return self._known[key]

  def kernel(self, value: Value, channels: int, *, label: str) -> Value:
    """Mark an array as a kernel with its output channels along an axis; returns its name."""
    if not isinstance(value, np.ndarray):
      return value
    name = self.name(np.ascontiguousarray(value), label=label)
    self.kernels[name] = channels
    return name

  def transpose(self, value: Value, axes: Sequence[int]) -> Value:
    """Permute the axes of a value, at once if it is known."""
    if isinstance(value, np.ndarray):
      return value.transpose(axes)
    return self.add('Transpose', value, perm=list(axes))

  def integers(self, *values: int) -> np.ndarray:
    """Returns a vector of int64."""
    return np.array(values, np.int64)

  def shape(self, sizes: Sequence[Any]) -> Value:
    """Returns the vector of some sizes, which may be symbolic."""
    if all(isinstance(size, int | np.integer) for size in sizes):
      return self.integers(*map(int, sizes))
    return self.add('Concat', *(self.size(size) for size in sizes), axis=0)

  def size(self, size: Any) -> Value:
    """Returns one size as a vector of one number."""
    try:
      return self.integers(int(size))
    except Exception:  # a symbolic size, whose error is private to JAX
      text = str(size)
    if text not in self._sizes:
      tree = ast.parse(text.replace('^', '**'), mode='eval')
      self._sizes[text] = self.name(self._compute(tree.body))
    return self._sizes[text]

  def _compute(self, tree: ast.expr) -> Value:
    """Append the nodes that compute a size from the sizes of the input."""
    match tree:
      case ast.Constant(value=int(number)):
        return self.integers(number)
      case ast.Name(id=axis):
        if axis not in self._sizes:
          shape = self.add('Shape', next(iter(self._inputs)))
          index = self.integers(self._axes.index(axis))
          self._sizes[axis] = self.add('Gather', shape, index)
        return self._sizes[axis]
      case ast.UnaryOp(op=ast.USub(), operand=operand):
        return self.add('Neg', self._compute(operand))
      case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
        return self.add(_OPERATORS[type(operator)], self._compute(left), self._compute(right))
      case ast.Call(func=ast.Name(id=function), args=[left, right]):
        a, b = self._compute(left), self._compute(right)
        if function in _EXTREMES:
          return self.add(_EXTREMES[function], a, b)
        rest = self.add('Mod', a, b)  # has the sign of the divisor, as in Python
        if function == 'mod':
          return rest
        if function == 'floordiv':
          return self.add('Div', self.add('Sub', a, rest), b)
    raise ValueError(f'the size {ast.unparse(tree)} has no form in ONNX')

  def build(self, name: str, output: Value, shape: Sequence[Any]) -> Any:
    """Returns the model, with a value of the given shape as the output 'sr'."""
    self.nodes.append(helper.make_node('Identity', [self.name(output)], ['sr']))
    ends = [
      helper.make_tensor_value_info(
        end, TensorProto.FLOAT, [n if isinstance(n, int) else str(n) for n in sizes]
      )
      for end, sizes in {**self._inputs, 'sr': shape}.items()
    ]
    tensors = [numpy_helper.from_array(x, key) for key, x in self.constants.items()]
    graph = helper.make_graph(self.nodes, name, ends[:-1], ends[-1:], tensors)
    opset = helper.make_opsetid('', OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
