"""Find a network that is stored as a run or a package, and read its config and variables."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from jaxsr import config as configs
from jaxsr import models, sharding
from jaxsr.compression import slicing, slimmable
from jaxsr.errors import UserError, one_line
from jaxsr.inference import package
from jaxsr.models import Network

if TYPE_CHECKING:
  from jaxsr.checkpoint import Checkpoints


class StoredNetwork(NamedTuple):
  """A network on disk: its config, and the function that reads its variables."""

  name: str
  config: dict[str, Any]
  network: Network
  read: Callable[..., tuple[Any, int]]
  folder: Path
  degradation: str  # what it was trained for; older runs and packages know bicubic only

  def shapes(self) -> Any:
    """Returns the shapes of its variables, on one device; raises UserError if it has none."""
    with _usable(self.folder):
      return shapes(self.network)


@contextlib.contextmanager
def _usable(folder: Path) -> Iterator[None]:
  """Raise UserError with the path of a config of which no network can be built."""
  try:
    yield
  except UserError:
    raise
  except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
    why = f'gives no network ({type(error).__name__}: {one_line(error)})'
    raise UserError(f'{folder / package.CONFIG}: {why}; restore it') from error


def names() -> list[str]:
  """Returns the names of the pretrained models, then those of the interpolations."""
  return [*package.names(), *models.PARAMETER_FREE]


def read_config(name_or_folder: str) -> dict[str, Any]:
  """Read the config of a run, or the part of it that a package holds; raises UserError."""
  return find(name_or_folder).config


def is_slimmable(config: dict[str, Any]) -> bool:
  """Whether a run or package of this config was trained at several sizes."""
  loss = config.get('loss')
  return 'slimmable' in config if loss is None else bool(loss.get('slimmable'))


def load_variables(name_or_folder: str, network: Network, target: Any) -> tuple[Any, int, str]:
  """Load the averaged variables that training of a network starts from.

  They are those of a run or package of the same network, or cut from a wider or deeper one.

  Args:
    name_or_folder: a run or package.
    network: the network that is to be trained.
    target: the shapes and shardings of its variables.

  Returns:
    The variables, their step, and how they were cut ('' if they were not).

  Raises:
    UserError: the networks differ in more than width and depth.
  """
  try:
    saved = find(name_or_folder)
    if found := slicing.differences(network, saved.network):
      rule = 'start from a run of the same network, or of a wider or deeper one'
      raise UserError(f'{found[0]}; {rule}')
    if not (cut := slicing.smaller(network, saved.network)):
      return *saved.read(target), ''
    variables, step = saved.read(shapes(saved.network))
    variables = slicing.make_cut(network, saved.network, variables, ranked=True).take(variables)
    place = lambda x, to: jax.device_put(x, to.sharding)  # noqa: E731
    return {k: jax.tree.map(place, variables.get(k, {}), target[k]) for k in target}, step, cut
  except UserError as error:
    raise UserError(f'config.init_from={name_or_folder}: {error}') from error


def shapes(network: Network) -> Any:
  """Returns the shapes of a network's variables, on one device."""
  here = sharding.replicated(sharding.make_mesh(1))
  placed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)  # noqa: E731
  return jax.tree.map(placed, models.shapes(network))


def slim(stored: StoredNetwork, variables: Any, width: float, depth: float) -> tuple[Network, Any]:
  """Cut a slimmable network to one of the sizes that it was trained at."""
  for name, value in (('width', width), ('depth', depth)):
    known = stored.config['slimmable'][f'{name}s'] if is_slimmable(stored.config) else [1.0]
    if value not in known:
      sizes = ', '.join(map(str, known))
      raise UserError(f'{name} {value}: {stored.name} was trained at {name} {sizes} only')
  small = slimmable.shrink(stored.network, stored.config['model'], width, depth)
  cut = slicing.make_cut(small, stored.network, models.shapes(stored.network), ranked=False)
  return small, cut.take(variables)


def find(name_or_folder: str) -> StoredNetwork:
  """Find a package by its name or folder, or a run by its folder; raises UserError."""
  folder = Path(name_or_folder).expanduser()
  name = folder.resolve().name
  if (shipped := package.find(name_or_folder)) is not None:
    config = package.read_config(shipped).config

    def read_package(target: Any, *, step: str = 'latest') -> tuple[Any, int]:
      if step != 'latest':
        raise UserError(f'step {step}: {name_or_folder} is a package, which has only one step')
      return package.read(shipped, target), package.read_config(shipped).origin['step']

    kind = package.read_config(shipped).origin.get('degradation', {}).get('kind', 'bicubic')
    return StoredNetwork(name, config, _network(config), read_package, shipped, kind)
  from jaxsr.checkpoint import Checkpoints, run_dir  # here, since Orbax takes long to import

  saved = run_dir.read_config(folder) if folder.is_dir() else None
  if saved is None:
    raise UserError(
      f'checkpoint {name_or_folder!r} is neither the folder of a run or package nor one of: '
      f'{", ".join(names())}'
    )
  checkpoints = Checkpoints(folder / 'checkpoints')
  checkpoints.run, checkpoints.config = saved['run'], saved['config']

  def read(target: Any, *, step: str = 'latest') -> tuple[Any, int]:
    return checkpoints.restore_variables(target, step=_number(checkpoints, step))

  with _usable(folder):
    kind = saved['config']['data'].get('degradation', {}).get('kind', 'bicubic')
    network = _network(saved['config'])
    is_slimmable(saved['config'])  # which later steps ask
  return StoredNetwork(name, saved['config'], network, read, folder, kind)


def _network(config: dict[str, Any]) -> Any:
  """Build the network of a config, in float32 on CPUs, which only emulate bfloat16."""
  on_cpu = {'precision': 'float32'} if jax.default_backend() == 'cpu' else {}
  return configs.build_network({**config, **on_cpu})


def _number(checkpoints: 'Checkpoints', step: str) -> int | None:
  """Returns a step as a number, or None for the newest one that is valid."""
  steps = checkpoints.steps()
  if not steps or step == 'latest':
    return None
  if step == 'best':
    if (best := checkpoints.best()) is None:
      raise UserError(f'step best: none of {", ".join(map(str, steps))} was validated')
    return best
  if not step.isdigit() or int(step) not in steps:
    known = ', '.join(map(str, steps))
    raise UserError(f'step {step} is unknown: choose one of: latest, best, {known}')
  return int(step)
