"""Every trainable network, small; and variables without the time that an initialisation takes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import models

KEY = jax.random.key(0, impl='rbg')  # compiles faster than threefry
quick = partial(  # compiles faster, by leaving machine code as it comes
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)
TRAINABLE = [name for name, kind in models.MODELS.items() if kind.trainable]
FREE = [name for name in models.MODELS if name not in TRAINABLE]
SMALL = {
  'edsr': {'features': 8, 'blocks': 2},
  'fsrcnn': {'features': 8, 'shrunk': 4, 'blocks': 2},
  'rcan': {'features': 8, 'groups': 2, 'blocks': 2, 'reduction': 4},
  'rdn': {'features': 8, 'blocks': 2, 'layers': 2, 'growth': 4},
  'rlfn': {'features': 8, 'blocks': 2, 'attention': 4},
  'rrdb': {'features': 8, 'growth': 4, 'blocks': 2},
  'span': {'features': 8, 'blocks': 2},
  'srcnn': {'features': (8, 4)},
  'srdensenet': {'growth': 4, 'blocks': 2, 'layers': 3, 'bottleneck': 8},
  'srresnet': {'features': 8, 'blocks': 2},
  'swift_srgan': {'features': 8, 'blocks': 2},
  'swinir': {'features': 12, 'depths': (2, 2), 'heads': 2, 'window': 4, 'tail_features': 8},
  'vdsr': {'features': 8, 'blocks': 3},
}


def build(name, options=(), *, scale=2, channels=1, precision='float32'):
  """Build a small network; its options are over the small ones."""
  options = (SMALL[name] if name in TRAINABLE else {}) | dict(options)
  return models.build(name, options, scale=scale, channels=channels, precision=precision)


def shapes(network, shape, **options):
  """Trace a network: the shape of its output and of its variables."""
  spec = jax.ShapeDtypeStruct(shape, jnp.float32)
  return jax.eval_shape(lambda x: network.init_with_output(KEY, x, **options), spec)


def draw(rng, network, shape, **options):
  """Draw variables that keep activations near 1, and leave nothing at a constant."""
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
