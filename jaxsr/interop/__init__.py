"""Conversion of published weights to variables of this project's networks.

Tensors are matched by name under every naming in `naming` and every layout; the reading with the
fewest problems is used. The network's variant, width and depth are read from the tensors' shapes.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxsr import models
from jaxsr.errors import UserError, brief, flat, nearest
from jaxsr.interop import architecture, trial
from jaxsr.interop.naming import NAMINGS, OURS
from jaxsr.interop.state_dict import FLOATS, Reading, Tensors, readings
from jaxsr.models.layers import shuffle_stages


class WeightMismatchError(UserError):
  """The tensors do not fit the network; `problems` has one line for each that does not."""

  def __init__(self, text: str, problems: list[str]):
    super().__init__(text)
    self.problems = problems


class Published(NamedTuple):
  """A network's options, channels and variables, the file's naming and layout, and problems."""

  options: dict[str, Any]
  channels: int
  variables: dict[str, Any]
  naming: str
  layout: str
  problems: list[str]


def read(
  tensors: Tensors,
  *,
  model: str,
  scale: int,
  options: Mapping[str, Any] | None = None,
  order: str | None = None,
  image: np.ndarray | None = None,
  naming: str | None = None,
) -> Published:
  """Convert tensors by name to a network's variables, float32.

  Args:
    tensors: The arrays of the file by name.
    model: The name of the network, as in `models.MODELS`.
    scale: The upsampling factor.
    options: Options of the network that override those read from the tensors.
    order: The order of the channels before a pixel shuffle, 'torch' or 'tensorflow'. By default,
      TensorFlow's for this project's own names and PyTorch's for all others.
    image: A gray image [h, w] in [0, 1]. If several namings fit equally well, the networks are
      compared on it, and the one with the highest PSNR is returned; without it, the first.
    naming: The title of the only naming to try.

  Returns:
    The options, channels and variables of the network, and the naming and layout of the file.

  Raises:
    UserError: If the network or an option is unknown, or there are no tensors.
    WeightMismatchError: If tensors are missing, unknown, not finite, or of the wrong shape.
  """
  if model not in architecture.READERS:
    raise UserError(
      f'weights for {model!r} cannot be imported: {nearest(model, architecture.READERS)}'
    )
  if not tensors:
    raise UserError('there are no tensors: check the file')
  models.build(model, options, scale=scale)  # raises UserError for unknown options
  wild = [f'{name} {x.shape}: is not finite' for name, x in tensors.items() if not _finite(x)]
  if wild:
    raise WeightMismatchError('the file contains numbers that are not finite', wild)
  fits = (_fit(each, model, scale, options or {}, order) for each in readings(tensors, model))
  found = [fit for fit in fits if fit is not None and naming in (None, fit.naming)]
  if not found:
    raise _unknown(tensors, model)
  best = min(found, key=lambda fit: (not fit.variables, len(fit.problems)))
  equal = [fit for fit in found if fit.variables and not fit.problems]
  if image is not None and len({fit.naming for fit in equal}) > 1:
    best = max(equal, key=lambda fit: _psnr(fit, model, scale, image))
  if best.variables and best.channels not in (1, 3):
    text = f'{model} supports 1 or 3 channels: the tensors have {best.channels} channels'
    raise WeightMismatchError(text, [])
  if best.problems:
    raise WeightMismatchError(
      f'does not fit {model} for scale {scale} (read with the names of {best.naming}, '
      f'{best.layout}): '
      f'{brief(best.problems, 1)}',
      best.problems,
    )
  return best


def _psnr(fit: Published, model: str, scale: int, image: np.ndarray) -> float:
  network = models.build(model, fit.options, scale=scale, channels=fit.channels)
  return trial.run(network, fit.variables, image).psnr


def _unknown(tensors: Tensors, model: str) -> WeightMismatchError:
  known = ', '.join(naming.title for naming in (*NAMINGS[model], OURS))
  return WeightMismatchError(
    f'the names of {len(tensors)} tensors, such as {next(iter(tensors))}, match no known '
    f'implementation of {model} ({known}): docs/importing.md describes how to rename them',
    [],
  )


def _finite(x: np.ndarray) -> bool:
  return x.dtype.name not in FLOATS or bool(np.isfinite(x.astype(np.float32)).all())


def _fit(
  reading: Reading, model: str, scale: int, options: Mapping[str, Any], order: str | None
) -> Published | None:
  """Returns a network's variables from a reading, with a list of problems.

  Returns None if the names are those of another network. This project's own naming accepts any
  name, so a missing layer means that the names are not its own.
  """
  reading, wrong = _ranged(reading), reading.not_floats()
  naming = reading.naming
  try:
    kernels = architecture.Kernels(reading.kernels())
    means, problems = ({}, wrong) if wrong else _means(reading)
    found = {**naming.options, **architecture.READERS[model](kernels), **means, **options}
    channels = architecture.channels(kernels)
    network = models.build(model, found, scale=scale, channels=channels)
    expected = _expected(network)
  except (LookupError, StopIteration, ValueError, ZeroDivisionError) as error:
    if reading.unknown or (naming is OURS and isinstance(error, KeyError | UserError)):
      return None
    problems = [f'the variant of the network is not clear: {_reason(error)}']
    return Published({}, 0, {}, naming.title, reading.layout, problems)
  if wrong:
    return Published(found, channels, {}, naming.title, reading.layout, wrong)
  torch = order == 'torch' if order else naming is not OURS
  zero = _without_bias(reading, expected)
  variables, used = {}, {(m, leaf) for m in ('sub_mean', 'add_mean') for leaf in ('weight', 'bias')}
  for path, shape in expected.items():
    module, leaf = '/'.join(path[1:-1]), path[-1]
    key = reading.find(module, leaf)
    if key is not None:
      used.add(key)
      x = _checked(reading, key, leaf, shape, problems)
      factor = _shuffled(module, network) if torch else None
      x = to_tensorflow(x, factor) if factor and x.ndim else x
      unshuffle = getattr(network, 'unshuffle', 1)
      if torch and unshuffle > 1 and module == 'head' and leaf == 'kernel':
        x = to_tensorflow(x.swapaxes(-1, -2), unshuffle).swapaxes(-1, -2)
      variables[path] = x / np.float32(naming.bias_range) if leaf == 'bias' else x
    elif leaf == 'bias' and module in zero:
      variables[path] = np.zeros(shape, np.float32)
    else:
      name = f'{module}/{leaf}'.lstrip('/')
      problems.append(f'{name} {reading.theirs(leaf, shape)}: is missing')
  problems += reading.unknown + reading.leftovers(used)
  tree = unflatten_dict(variables)
  return Published(found, channels, tree, naming.title, reading.layout, problems)


def _reason(error: Exception) -> str:
  return f'it has no {error.args[0]}' if isinstance(error, KeyError) else flat(error)


def _expected(network: models.Network) -> dict[tuple[str, ...], tuple[int, ...]]:
  """Returns the shapes of a network's variables by path."""
  flat: dict[Any, Any] = flatten_dict(models.shapes(network))
  return {path: x.shape for path, x in flat.items()}


def _checked(
  reading: Reading, key: tuple[str, str], leaf: str, shape: tuple[int, ...], problems: list[str]
) -> np.ndarray:
  """Returns a tensor; if its shape is wrong, appends to `problems` and returns zeros."""
  x = reading.take(key, leaf)
  x = x.reshape(()) if shape == () and x.size == 1 else x
  if x.shape != shape:
    name, original = reading.tensors[key]
    problems.append(f'{name} {original.shape}: should be {reading.theirs(leaf, shape)}')
    return np.zeros(shape, np.float32)
  return x


def _without_bias(reading: Reading, expected: Any) -> set[str]:
  """Returns the modules without bias under this naming, unless the file has a bias for one."""
  modules = {'/'.join(path[1:-1]) for path in expected if path[-1] == 'bias'}
  unbiased = {module for module in modules if reading.naming.is_unbiased(module)}
  return unbiased if not any(reading.find(module, 'bias') for module in unbiased) else set()


def _ranged(reading: Reading) -> Reading:
  """Returns a reading whose naming has the image range 1 if the stored mean shows it.

  EDSR-PyTorch trains with the image range 255 or, by `--rgb_range 1`, 1. Images with a mean below 1
  of 255 would be black.
  """
  naming, mean = reading.naming, reading.tensors.get(('sub_mean', 'bias'))
  if naming.mean_range == 1 or mean is None or not 0 < np.abs(mean[1]).max(initial=0) < 1:
    return reading
  options = {'image_range': 1.0} if 'image_range' in naming.options else {}
  naming = naming._replace(options={**naming.options, **options}, bias_range=1.0, mean_range=1.0)
  return dataclasses.replace(reading, naming=naming)


def _means(reading: Reading) -> tuple[dict[str, Any], list[str]]:
  """Returns the mean that EDSR-PyTorch stores as convolutions, and problems.

  The kernels must be the identity, and the mean subtracted before the network must equal the mean
  added after it.
  """
  found, problems = [], []
  for module, sign in (('sub_mean', -1), ('add_mean', 1)):
    weight, bias = (reading.tensors.get((module, leaf)) for leaf in ('weight', 'bias'))
    if weight is None or bias is None:
      continue
    size = len(problems)
    for (name, x), shape in ((weight, (3, 3, 1, 1)), (bias, (3,))):
      if x.size != math.prod(shape):
        problems.append(f'{name} {x.shape}: should be {shape}, the mean of RGB')
    if len(problems) > size:
      continue
    if np.abs(weight[1].astype(np.float32).reshape(3, 3) - np.eye(3)).max() > 1e-3:
      problems.append(f'{weight[0]} {weight[1].shape}: should be the identity')
    found.append(sign * bias[1].astype(np.float32) / np.float32(reading.naming.mean_range))
    if np.abs(found[0] - found[-1]).max() > 1e-3:
      problems.append(f'{bias[0]} {bias[1].shape}: should be what sub_mean subtracts')
  return ({'mean': tuple(map(float, found[0]))} if found else {}), problems


def _shuffled(module: str, network: Any) -> int | None:
  """Returns the factor of the pixel shuffle after a module, or None if there is none."""
  stage = module.removeprefix('upsampler/conv_').removeprefix('upsampler_')
  stage = stage.removesuffix('/pointwise')
  if stage.isdigit():
    return shuffle_stages(network.scale)[int(stage)]
  name = type(network).__name__
  direct = name in ('RLFN', 'SPAN') or getattr(network, 'upsampler', None) == 'direct'
  return network.scale if direct and module == 'tail' else None


def to_tensorflow(x: np.ndarray, factor: int) -> np.ndarray:
  """Reorder the last axis from channel, row, column to row, column, channel."""
  return x.reshape(*x.shape[:-1], -1, factor**2).swapaxes(-1, -2).reshape(x.shape)
