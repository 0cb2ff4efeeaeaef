"""Small versions of every trainable network, and variables without a slow initialization."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import specs
from jaxsr import models

KEY = jax.random.key(0, impl='rbg')  # compiles faster than threefry
quick = partial(  # compiles faster, without optimization of the machine code
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)
SMALL = {name: spec.small for name, spec in specs.SPECS.items()}
TRAINABLE = list(SMALL)
FREE = list(models.PARAMETER_FREE)


def build(name, options=(), *, scale=2, channels=1, precision='float32'):
  """Build a small network; `options` override the small ones."""
  options = (SMALL[name] if name in TRAINABLE else {}) | dict(options)
  return models.build(name, options, scale=scale, channels=channels, precision=precision)


def shapes(network, shape, **options):
  """Returns the shapes of a network's output and variables, by tracing."""
  spec = jax.ShapeDtypeStruct(shape, jnp.float32)
  return jax.eval_shape(lambda x: network.init_with_output(KEY, x, **options), spec)


def draw(rng, network, shape, **options):
  """Draw variables at random that keep activations near 1; none keeps a constant initial value."""
  _, variables = shapes(network, shape, **options)
  kept = {k: v for k, v in variables.items() if k in ('params', 'batch_stats')}
  return jax.tree_util.tree_map_with_path(partial(_draw, rng), kept)


def _draw(rng, path, x):
  name = path[-1].key
  if name == 'var':
    return jnp.asarray(rng.uniform(0.5, 2, x.shape), x.dtype)
  deviation = 1 / np.sqrt(np.prod(x.shape[:-1])) if name == 'kernel' else 0.2
  around = {'scale': 1.0, 'negative_slope': 0.25, 'unused_slope': 0.25}.get(name, 0.0)
  return jnp.asarray(around + deviation * rng.normal(size=x.shape), x.dtype)
