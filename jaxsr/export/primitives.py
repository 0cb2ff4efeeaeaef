"""The primitives of JAX that networks consist of, as operators of ONNX."""

from collections.abc import Callable, Sequence
from functools import partial
from string import ascii_letters
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto

from jaxsr.analysis.jaxpr import Instruction
from jaxsr.export.graph import Graph, Spread, Value

_END = 2**40  # beyond every index
_TYPES = {'float32': TensorProto.FLOAT, 'bool': TensorProto.BOOL}
_INTEGERS = ('int32', 'int64', 'uint32', 'uint8')


class Call(NamedTuple):
  """One primitive: its parameters, the shapes and types of its operands and of its result."""

  params: dict[str, Any]
  operands: Sequence[Any]
  result: Any
  label: str  # for constants: the scope of the primitive


def emit(
  graph: Graph, instruction: Instruction, call: Call, inputs: Sequence[Value]
) -> Sequence[Value]:
  """Append the nodes of a primitive; returns its outputs.

  Raises:
    ValueError: If the primitive, or this use of it, is not known.
  """
  if instruction.name in _ELEMENTWISE:
    inputs = _alike(call, inputs)
    return [graph.add(_ELEMENTWISE[instruction.name], *inputs)]
  if instruction.name not in RULES:
    raise ValueError(f'the primitive {instruction.name!r} is not known')
  found = RULES[instruction.name](graph, call, *inputs)
  return found if isinstance(found, list) else [found]


def _alike(call: Call, inputs: Sequence[Value]) -> Sequence[Value]:
  """Returns operands of an elementwise operator, of which ONNX can broadcast all but one."""
  full = [
    not isinstance(value, Spread) and tuple(map(str, x.shape)) == tuple(map(str, call.result.shape))
    for value, x in zip(inputs, call.operands, strict=True)
  ]
  if not any(full):
    return inputs
  return [value.value if isinstance(value, Spread) else value for value in inputs]


def _broadcast(graph: Graph, call: Call, x: Value, *_: Value) -> Value:
  shape, axes = call.params['shape'], call.params['broadcast_dimensions']
  old = call.operands[0].shape
  middle: list[Any] = [1] * len(shape)
  for axis, size in zip(axes, old, strict=True):
    middle[axis] = size
  if len(middle) != len(old):
    x = _reshaped(graph, x, middle)
  same = list(map(str, middle)) == list(map(str, shape))
  if same or isinstance(x, Spread):
    return x if same else graph.add('Expand', x, graph.shape(shape))
  return Spread(x, tuple(shape))


def _reshaped(graph: Graph, x: Value, sizes: Sequence[Any]) -> np.ndarray | str:
  if isinstance(x, np.ndarray):
    return x.reshape([int(n) for n in sizes])
  return graph.add('Reshape', x, graph.shape(sizes), allowzero=1)


def _convolution(graph: Graph, call: Call, x: Value, kernel: Value) -> Value:
  p = call.params
  numbers = p['dimension_numbers']
  if p['batch_group_count'] != 1:
    raise ValueError('a convolution with groups of the batch is not known')
  x = graph.transpose(x, numbers.lhs_spec)
  kernel = graph.transpose(kernel, numbers.rhs_spec)
  if set(p['lhs_dilation']) == {1}:
    pads = np.array(p['padding']).T.ravel().tolist()
    y = graph.add(
      'Conv',
      x,
      graph.kernel(kernel, 0, label=f'{call.label}/kernel'),
      pads=pads,
      strides=list(p['window_strides']),
      dilations=list(p['rhs_dilation']),
      group=p['feature_group_count'],
    )
  else:
    y = _transposed_convolution(graph, call, x, kernel)
  return graph.transpose(y, np.argsort(numbers.out_spec).tolist())


def _transposed_convolution(graph: Graph, call: Call, x: Value, kernel: Value) -> Value:
  """Convolve with zeros between the pixels of `x`: the full transposed convolution, cut or padded.

  ONNX's kernel is [in, out, h, w] and flipped.
  """
  p = call.params
  if p['feature_group_count'] != 1 or {*p['window_strides'], *p['rhs_dilation']} != {1}:
    raise ValueError('a transposed convolution with groups, strides or dilation is not known')
  if not isinstance(kernel, np.ndarray):
    raise ValueError('a transposed convolution with a computed kernel is not known')
  flipped = kernel[:, :, ::-1, ::-1].swapaxes(0, 1)
  weights = graph.kernel(flipped, 1, label=f'{call.label}/kernel')
  y = graph.add('ConvTranspose', x, weights, strides=list(p['lhs_dilation']))
  cut = np.array(kernel.shape[2:])[:, None] - 1 - np.array(p['padding'])  # [axis, (low, high)]
  first, last = cut.clip(min=0).T
  ends = np.where(last > 0, -last, _END)
  y = graph.add('Slice', y, first.astype(np.int64), ends.astype(np.int64), graph.integers(2, 3))
  more = (-cut).clip(min=0).T
  if more.any():
    y = graph.add('Pad', y, graph.integers(0, 0, *more[0], 0, 0, *more[1]))
  return y


def _product(graph: Graph, call: Call, a: Value, b: Value) -> Value:
  (left, right), (batch_a, batch_b) = call.params['dimension_numbers']
  rank_a, rank_b = (len(x.shape) for x in call.operands)
  if (tuple(left), tuple(right), len(batch_a), rank_b) == ((rank_a - 1,), (0,), 0, 2):
    return graph.add('MatMul', a, graph.kernel(b, 1, label=f'{call.label}/kernel'))
  letters = iter(ascii_letters)
  names_a, names_b = [''] * rank_a, [''] * rank_b
  for i, j in (*zip(batch_a, batch_b, strict=True), *zip(left, right, strict=True)):
    names_a[i] = names_b[j] = next(letters)
  names_a = [name or next(letters) for name in names_a]
  names_b = [name or next(letters) for name in names_b]
  result = [names_a[i] for i in batch_a]
  result += [name for i, name in enumerate(names_a) if i not in (*batch_a, *left)]
  result += [name for i, name in enumerate(names_b) if i not in (*batch_b, *right)]
  equation = f'{"".join(names_a)},{"".join(names_b)}->{"".join(result)}'
  return graph.add('Einsum', a, b, equation=equation)


def _gather(graph: Graph, call: Call, x: Value, indices: Value) -> Value:
  """Take entries along one axis, the only gather that networks have."""
  numbers, rank = call.params['dimension_numbers'], len(call.operands[0].shape)
  (axis, *others) = numbers.start_index_map
  if others or numbers.operand_batching_dims:
    raise ValueError('a gather along several axes is not known')
  whole = [n == m for n, m in zip(call.params['slice_sizes'], call.operands[0].shape, strict=True)]
  if not all(same for i, same in enumerate(whole) if i != axis):
    raise ValueError('a gather of parts is not known')
  if not numbers.collapsed_slice_dims:
    return _part(graph, call, axis, x, indices)
  found = len(call.operands[1].shape) - 1
  flat = graph.add('Squeeze', indices, graph.integers(found))
  y = graph.add('Gather', x, flat, axis=axis)
  new = list(range(axis, axis + found))
  kept = [i for i in range(rank - 1 + found) if i not in new]
  places = [i for i in range(len(call.result.shape)) if i not in numbers.offset_dims]
  axes = dict(zip((*places, *numbers.offset_dims), (*new, *kept), strict=True))
  return graph.transpose(y, [axes[i] for i in range(len(axes))])


def _part(graph: Graph, call: Call, axis: int, x: Value, start: Value) -> Value:
  """Take neighboring entries: how JAX slices arrays that have symbolic sizes."""
  size, length = call.params['slice_sizes'][axis], call.operands[0].shape[axis]
  if not isinstance(start, np.ndarray) or start.shape != (1,):
    raise ValueError('a gather of several parts is not known')
  first = start.astype(np.int64).clip(0, length - size)
  return graph.add('Slice', x, first, first + size, graph.integers(axis))


def _max_pool(graph: Graph, call: Call, x: Value) -> Value:
  p = call.params
  size, strides, pads = (
    np.array(p[key]) for key in ('window_dimensions', 'window_strides', 'padding')
  )
  dilated = {*p['base_dilation'], *p['window_dilation']} != {1}
  if len(size) != 4 or {*size[[0, 3]], *strides[[0, 3]]} != {1} or pads[[0, 3]].any() or dilated:
    raise ValueError('a maximum over windows that are not spatial is not known')
  y = graph.add(
    'MaxPool',
    graph.transpose(x, (0, 3, 1, 2)),
    kernel_shape=size[1:3].tolist(),
    strides=strides[1:3].tolist(),
    pads=pads[1:3].T.ravel().tolist(),
  )
  return graph.transpose(y, (0, 2, 3, 1))


def _pad(graph: Graph, call: Call, x: Value, value: Value) -> Value:
  low, high, inner = zip(*call.params['padding_config'], strict=True)
  if any(inner):
    raise ValueError('padding between values is not known')
  return graph.add('Pad', x, graph.shape([*low, *high]), value)


def _slice(graph: Graph, call: Call, x: Value) -> Value:
  p = call.params
  axes = graph.integers(*range(len(p['start_indices'])))
  steps = p['strides'] or (1,) * len(axes)
  starts, ends = graph.shape(p['start_indices']), graph.shape(p['limit_indices'])
  return graph.add('Slice', x, starts, ends, axes, graph.shape(steps))


def _reverse(graph: Graph, call: Call, x: Value) -> Value:
  axes = graph.integers(*call.params['dimensions'])
  last, before, back = (np.full_like(axes, n) for n in (-1, -_END, -1))
  return graph.add('Slice', x, last, before, axes, back)


def _iota(graph: Graph, call: Call) -> Value:
  axis = call.params['dimension']
  length = graph.add('Squeeze', graph.size(call.result.shape[axis]))
  y = graph.add('Range', np.array(0, np.int64), length, np.array(1, np.int64))
  y = _cast_to(graph, str(call.result.dtype), y)
  middle: list[Any] = [1] * len(call.result.shape)
  middle[axis] = call.result.shape[axis]
  return Spread(_reshaped(graph, y, middle), tuple(call.result.shape))


def _cast_to(graph: Graph, kind: str, x: Value) -> str:
  if kind not in _TYPES and kind not in _INTEGERS:
    raise ValueError(f'numbers of type {kind} are not known')
  return graph.add('Cast', x, to=_TYPES.get(kind, TensorProto.INT64))


def _cast(graph: Graph, call: Call, x: Value) -> Value:
  return _cast_to(graph, str(np.dtype(call.params['new_dtype'])), x)


def _select(graph: Graph, call: Call, which: Value, *cases: Value) -> Value:
  if len(cases) != 2 or str(call.operands[0].dtype) != 'bool':
    raise ValueError('a selection among more than two arrays is not known')
  which, first, second = _alike(call, (which, *cases))
  return graph.add('Where', which, second, first)


def _power(graph: Graph, call: Call, x: Value) -> Value:
  return graph.add('Pow', x, np.array(call.params['y'], np.float32))


def _sum(graph: Graph, call: Call, x: Value) -> Value:
  return graph.add('ReduceSum', x, graph.integers(*call.params['axes']), keepdims=0)


def _extreme(operator: str, graph: Graph, call: Call, x: Value) -> Value:
  return graph.add(operator, x, axes=list(call.params['axes']), keepdims=0)


def _axes(operator: str, graph: Graph, call: Call, x: Value) -> Value:
  return graph.add(operator, x, graph.integers(*call.params['dimensions']))


def _clamp(graph: Graph, call: Call, low: Value, x: Value, high: Value) -> Value:
  return graph.add('Min', graph.add('Max', x, low), high)


def _unstack(graph: Graph, call: Call, x: Value) -> list[Value]:
  axis = call.params['axis']
  places = range(call.operands[0].shape[axis])
  return [graph.add('Gather', x, np.array(i, np.int64), axis=axis) for i in places]


def _same(graph: Graph, call: Call, x: Value) -> Value:
  return x


_ELEMENTWISE = {
  'add': 'Add',
  'add_any': 'Add',
  'sub': 'Sub',
  'mul': 'Mul',
  'div': 'Div',
  'max': 'Max',
  'min': 'Min',
  'gt': 'Greater',
  'ge': 'GreaterOrEqual',
  'lt': 'Less',
  'le': 'LessOrEqual',
  'eq': 'Equal',
  'pow': 'Pow',
  'and': 'And',
  'or': 'Or',
  'not': 'Not',
  'neg': 'Neg',
  'exp': 'Exp',
  'log': 'Log',
  'tanh': 'Tanh',
  'logistic': 'Sigmoid',
  'abs': 'Abs',
  'sqrt': 'Sqrt',
  'sin': 'Sin',
  'cos': 'Cos',
  'erf': 'Erf',
  'floor': 'Floor',
  'sign': 'Sign',
}
RULES: dict[str, Callable[..., Value | list[Value]]] = {
  'broadcast_in_dim': _broadcast,
  'clamp': _clamp,
  'concatenate': lambda g, call, *xs: g.add('Concat', *xs, axis=call.params['dimension']),
  'conv_general_dilated': _convolution,
  'convert_element_type': _cast,
  'copy': _same,
  'copy_p': _same,
  'dim_as_value': lambda g, call: g.add('Squeeze', g.size(call.params['dim'])),
  'dot_general': _product,
  'erfc': lambda g, call, x: g.add('Sub', np.array(1, np.float32), g.add('Erf', x)),
  'expand_dims': partial(_axes, 'Unsqueeze'),
  'gather': _gather,
  'integer_pow': _power,
  'iota': _iota,
  'ne': lambda g, call, a, b: g.add('Not', g.add('Equal', *_alike(call, (a, b)))),
  'optimization_barrier': _same,
  'pad': _pad,
  'reduce_max': partial(_extreme, 'ReduceMax'),
  'reduce_min': partial(_extreme, 'ReduceMin'),
  'reduce_sum': _sum,
  'reduce_window_max': _max_pool,
  'reshape': lambda g, call, x: _reshaped(g, x, call.params['new_sizes']),
  'rev': _reverse,
  'rsqrt': lambda g, call, x: g.add('Reciprocal', g.add('Sqrt', x)),
  'select_n': _select,
  'slice': _slice,
  'square': lambda g, call, x: g.add('Mul', x, x),
  'squeeze': partial(_axes, 'Squeeze'),
  'stop_gradient': _same,
  'transpose': lambda g, call, x: g.transpose(x, call.params['permutation']),
  'unstack': _unstack,
}
