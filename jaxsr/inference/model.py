"""Give a run's folder, a package or the name of an interpolation, get a network ready to use."""

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Float, UInt

from jaxsr import config as configs
from jaxsr import models, sharding
from jaxsr.checkpoint import Checkpoints, run_dir
from jaxsr.compression import slicing, slimmable
from jaxsr.errors import UserError
from jaxsr.inference import package, tiling
from jaxsr.inference.upscale import make_enlarge


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


class Stored(NamedTuple):
  """A network on disk: its config, and what reads its variables into a target at a step."""

  config: dict[str, Any]
  network: nn.Module
  read: Callable[..., tuple[Any, int]]

  @property
  def slimmable(self) -> bool:
    """Tell whether it was trained at several sizes; a package says so by having the section."""
    loss = self.config.get('loss')
    return 'slimmable' in self.config if loss is None else bool(loss.get('slimmable'))


def load(
  checkpoint: str | None,
  *,
  scale: int | None = None,
  step: str = 'latest',
  width: float = 1.0,
  depth: float = 1.0,
  fold: bool = True,
) -> Predictor:
  """Load the averaged parameters of a run or package, or an interpolation by its name.

  None is the package that comes along for `scale`.
  What only training needs is folded away, unless `fold` is off. `step` is 'latest', 'best' (by the
  run's own validation) or a number. `width` and `depth` choose a size of a slimmable network.
  Raises UserError.
  """
  checkpoint = package.default(scale) if checkpoint is None else checkpoint
  if checkpoint in models.PARAMETER_FREE:
    if (width, depth) != (1.0, 1.0):
      raise UserError(f'{checkpoint} has neither width nor depth')
    chosen = package.DEFAULT_SCALE if scale is None else scale
    network = models.build(checkpoint, scale=chosen)
    return Predictor(checkpoint, network, {}, chosen, 1, None)
  stored = find(checkpoint)
  config, network = stored.config, stored.network
  if scale not in (None, config['scale']):
    raise UserError(f'--scale {scale}: {checkpoint} was trained for scale {config["scale"]}')
  variables, found = stored.read(_shapes(network), step=step)
  if (width, depth) != (1.0, 1.0):
    network, variables = _slim(checkpoint, stored, variables, width, depth)
  if fold:
    network, variables = models.fold(network, variables)
  return Predictor(
    config['model']['name'], network, variables, config['scale'], config['channels'], found
  )


def _shapes(network: nn.Module) -> Any:
  """Give the shapes of a network's variables, on one device."""
  here = sharding.replicated(sharding.make_mesh(1))
  placed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)  # noqa: E731
  return jax.tree.map(placed, models.shapes(network))


def _slim(
  checkpoint: str, stored: Stored, variables: Any, width: float, depth: float
) -> tuple[nn.Module, Any]:
  """Cut a slimmable network to one of the sizes that it was trained at."""
  for name, value in (('width', width), ('depth', depth)):
    known = stored.config['slimmable'][f'{name}s'] if stored.slimmable else [1.0]
    if value not in known:
      sizes = ', '.join(map(str, known))
      raise UserError(f'--{name} {value}: {checkpoint} was trained at {name} {sizes} only')
  small = slimmable.shrink(stored.network, stored.config['model'], width, depth)
  cut = slicing.make_cut(small, stored.network, models.shapes(stored.network), ranked=False)
  return small, cut.take(variables)


def find(checkpoint: str) -> Stored:
  """Find a run by its folder, or a package by its folder or name; raises UserError."""
  folder = Path(checkpoint)
  if (shipped := package.find(checkpoint)) is not None:
    config = package.read_config(shipped).config

    def read_package(target: Any, *, step: str = 'latest') -> tuple[Any, int]:
      if step != 'latest':
        raise UserError(f'--step {step}: {checkpoint} is a package, which has one step only')
      return package.read(shipped, target), package.read_config(shipped).origin['step']

    return Stored(config, configs.build_network(config), read_package)
  saved = run_dir.read_config(folder) if folder.is_dir() else None
  if saved is None:
    names = ', '.join((*models.PARAMETER_FREE, *package.known()))
    raise UserError(
      f'checkpoint {checkpoint!r} is neither the folder of a run or package nor one of: {names}'
    )
  checkpoints = Checkpoints(folder / 'checkpoints')

  def read(target: Any, *, step: str = 'latest') -> tuple[Any, int]:
    return checkpoints.restore_variables(target, step=_number(checkpoints, step))

  return Stored(saved['config'], configs.build_network(saved['config']), read)


def restore(checkpoint: str, network: nn.Module, target: Any) -> tuple[Any, int, str]:
  """Restore averaged variables for a run of the same network, or cut them from a larger one's.

  `target` gives their shapes and shardings. Returns their step, and how they were cut, too. Raises
  UserError where the networks differ in more than width and depth.
  """
  try:
    stored = find(checkpoint)
    if found := slicing.differences(network, stored.network):
      rule = 'start from a run of the same network, or of a wider or deeper one'
      raise UserError(f'{found[0]}; {rule}')
    if not (cut := slicing.smaller(network, stored.network)):
      return *stored.read(target), ''
    variables, step = stored.read(_shapes(stored.network))
    variables = slicing.make_cut(network, stored.network, variables, ranked=True).take(variables)
    place = lambda x, to: jax.device_put(x, to.sharding)  # noqa: E731
    return {k: jax.tree.map(place, variables.get(k, {}), target[k]) for k in target}, step, cut
  except UserError as error:
    raise UserError(f'config.init_from={checkpoint}: {error}') from error


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


def make_upscale(
  predictor: Predictor, *, ensemble: bool = False, tile: int = tiling.SIDE
) -> Callable[[UInt[np.ndarray, 'h w c']], Any]:
  """Build the function that enlarges a uint8 or uint16 image [h, w, c] and keeps its kind.

  `ensemble` is that of `make_predict`. The rows of an image are divided among the devices of this
  process. Images with a side of more than `tile` low-resolution pixels are enlarged in windows, one
  on each device at a time, where the network sees only so far. Threads that call it take turns.
  """
  network = predictor.network
  whole = make_enlarge(network, ensemble=ensemble, devices=jax.local_devices())
  window = make_enlarge(network, ensemble=ensemble)
  mesh = sharding.make_mesh()
  placed = sharding.replicated(mesh)
  everywhere = functools.cache(lambda: jax.device_put(predictor.variables, placed))
  margin = functools.cache(tiling.margin_of)  # seconds of tracing, where an image is large
  turn = threading.Lock()

  def compute(lr: np.ndarray, levels: np.float32) -> np.ndarray:
    beyond = margin(network) if max(lr.shape) > tile else None
    if beyond is None:
      return np.asarray(whole(predictor.variables, lr[None], levels)[0])
    return tiling.enlarge(
      lambda images: window(everywhere(), sharding.put({'lr': images}, mesh)['lr'], levels),
      lr,
      scale=predictor.scale,
      side=tile,
      margin=beyond,
      grid=tiling.grid_of(network),
      together=mesh.size,
    )

  def upscale(image: UInt[np.ndarray, 'h w c']) -> UInt[np.ndarray, 'sh sw c']:
    levels = np.float32(np.iinfo(image.dtype).max)
    lr: Float[np.ndarray, 'h w c'] = image.astype(np.float32) / levels
    with turn:
      made = compute(lr, levels)
    return np.rint(made * levels).astype(image.dtype)

  return upscale
