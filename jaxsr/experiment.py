"""From a config to the functions that a run is made of."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsr import config as configs
from jaxsr import sharding
from jaxsr.config import Config
from jaxsr.errors import UserError
from jaxsr.state import State, init
from jaxsr.step import make_objective, make_optimizer, make_train_step


class Experiment(NamedTuple):
  """A network and what trains it."""

  network: Any
  init: Any  # () -> State, jitted
  step: Any  # (State, batch) -> (State, scalars), jitted; the state is donated
  shapes: State  # with shardings


def assemble(config: Config, mesh: Mesh) -> Experiment:
  """Build the network and its jitted, sharded, donated step; nothing is compiled yet.

  Raises UserError where the network's options do not make a network.
  """
  network = configs.build_network(config)
  tx, schedule = make_optimizer(steps=config.steps, **config.optimizer)
  objective = make_objective(dict(config.loss))
  everywhere = sharding.replicated(mesh)

  def make() -> State:
    lr = jnp.zeros((1, config.data.patch, config.data.patch, config.channels))
    return init(network, tx, jax.random.key(config.seed), lr)

  try:
    shapes = jax.eval_shape(make)
  except (ValueError, TypeError, ZeroDivisionError) as error:
    raise UserError(f'config.model: {str(error).strip().splitlines()[0]}') from error
  if not jax.tree.leaves(shapes.ema):
    raise UserError(f'network {config.model.name!r} has nothing to train; evaluate it instead')
  placed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)  # noqa: E731
  step = jax.jit(
    make_train_step(network, objective, tx, schedule, config.ema),
    in_shardings=(everywhere, sharding.split(mesh)),
    out_shardings=everywhere,
    donate_argnums=0,
  )
  return Experiment(
    network, jax.jit(make, out_shardings=everywhere), step, jax.tree.map(placed, shapes)
  )
