"""Give the name of an interpolation or a run's folder, get a network that is ready to use."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float, UInt

from jaxsr import config as configs
from jaxsr import models, sharding, workdir
from jaxsr.checkpoint import Checkpoints
from jaxsr.errors import UserError
from jaxsr.metrics import quantise
from jaxsr.step import make_predict

DEFAULT_SCALE = 4
_HARMLESS = ('dtype', 'remat', 'parent', 'name')  # fields that parameters do not depend on


class Predictor(NamedTuple):
  """A network with its variables; `step` is None where nothing was trained."""

  name: str
  network: nn.Module
  variables: Any
  scale: int
  channels: int
  step: int | None

  @property
  def parameters(self) -> int:
    """Count what was trained."""
    return models.count_parameters(self.variables)


def load(checkpoint: str, *, scale: int | None = None, step: str = 'latest') -> Predictor:
  """Load the averaged parameters of a run, folded, or an interpolation by its name.

  `step` is 'latest', 'best' (by the run's own validation) or a number. Raises UserError.
  """
  if checkpoint in models.PARAMETER_FREE:
    chosen = DEFAULT_SCALE if scale is None else scale
    network = models.build(checkpoint, scale=chosen)
    return Predictor(checkpoint, network, {}, chosen, 1, None)
  folder = Path(checkpoint)
  saved = workdir.read_config(folder) if folder.is_dir() else None
  if saved is None:
    names = ', '.join(models.PARAMETER_FREE)
    raise UserError(f'checkpoint {checkpoint!r} is neither the folder of a run nor one of: {names}')
  config = saved['config']
  if scale not in (None, config['scale']):
    raise UserError(f'--scale {scale}: {checkpoint} was trained for scale {config["scale"]}')
  return _restore(folder, config, step)


def _restore(folder: Path, config: dict, step: str) -> Predictor:
  network = configs.build_network(config)
  example = jax.ShapeDtypeStruct((1, 32, 32, config['channels']), np.float32)
  shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), example)
  shapes = {name: shapes[name] for name in ('params', 'batch_stats') if name in shapes}
  here = sharding.replicated(sharding.make_mesh(1))
  target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), shapes)
  checkpoints = Checkpoints(folder / 'checkpoints')
  variables, found = checkpoints.restore_variables(target, step=_number(checkpoints, step))
  network, variables = models.fold(network, variables)
  return Predictor(
    config['model']['name'], network, variables, config['scale'], config['channels'], found
  )


def restore(checkpoint: str, network: nn.Module, target: Any) -> tuple[Any, int]:
  """Restore a run's averaged variables for another run of the same network, and tell their step.

  `target` gives their shapes and shardings. Raises UserError where the networks differ.
  """
  folder = Path(checkpoint)
  saved = workdir.read_config(folder) if folder.is_dir() else None
  if saved is None:
    raise UserError(f'config.init_from={checkpoint}: is not the folder of a run')
  other = configs.build_network(saved['config'])
  if type(other) is not type(network):
    raise UserError(
      f'config.init_from={checkpoint}: is of {saved["config"]["model"]["name"]}, another network'
    )
  for field in dataclasses.fields(network):
    there, here = getattr(other, field.name), getattr(network, field.name)
    if field.name not in _HARMLESS and there != here:
      raise UserError(
        f'config.init_from={checkpoint}: its {field.name} is {there}, not {here}: start from a run '
        'of the same network'
      )
  return Checkpoints(folder / 'checkpoints').restore_variables(target)


def _number(checkpoints: Checkpoints, step: str) -> int | None:
  steps = checkpoints.steps()
  if not steps or step == 'latest':
    return None
  if step == 'best':
    if (best := checkpoints.best()) is None:
      raise UserError(f'--step best: none of {", ".join(map(str, steps))} was validated')
    return best
  if not step.isdigit() or int(step) not in steps:
    known = ', '.join(map(str, steps))
    raise UserError(f"--step {step}: there are 'latest', 'best' and {known}")
  return int(step)


def make_upscale(predictor: Predictor) -> Callable[[UInt[np.ndarray, 'h w c']], Any]:
  """Build the function that enlarges a uint8 or uint16 image [h, w, c] and keeps its kind."""
  predict = make_predict(predictor.network)

  @jax.jit
  def enlarge(variables: Any, lr: jax.Array, levels: jax.Array) -> jax.Array:
    return quantise(predict(variables, lr), levels) * levels

  def upscale(image: UInt[np.ndarray, 'h w c']) -> UInt[np.ndarray, 'sh sw c']:
    levels = np.float32(np.iinfo(image.dtype).max)
    lr: Float[np.ndarray, '1 h w c'] = image[None].astype(np.float32) / levels
    return np.rint(np.asarray(enlarge(predictor.variables, lr, levels)[0])).astype(image.dtype)

  return upscale
