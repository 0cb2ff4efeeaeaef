"""Export a model as StableHLO, one file for CPUs, NVIDIA GPUs and TPUs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict

from jaxsr import ops
from jaxsr.compression import quantize
from jaxsr.export.exportable import Exportable, store

PLATFORMS = ('cpu', 'cuda', 'tpu')


def serialize(exportable: Exportable) -> tuple[bytes, float]:
  """Export a model and run the result on this machine beside the model.

  Returns:
    The content of the file, and the largest difference relative to the largest value.

  Raises:
    MismatchError: The result differs from the model.
  """
  stored = store(exportable.model.variables, exportable.precision)

  def upscale(lr: jax.Array) -> Any:
    return exportable.apply(_restored(stored), lr)

  facts = exportable.facts
  upscale.__name__ = f'jaxsr_{facts["network"]}_x{facts["scale"]}_{facts["weights"]}'
  with ops.plain():
    lr = jax.ShapeDtypeStruct(exportable.shape, jnp.float32)
    exported = jax.export.export(jax.jit(upscale), platforms=PLATFORMS)(lr)
  content = bytes(exported.serialize())
  run = jax.export.deserialize(bytearray(content)).call
  return content, exportable.check(lambda lr: np.asarray(run(lr)))


def _restored(stored: dict[str, np.ndarray]) -> Any:
  """Returns the variables in float32, converted inside the computation."""
  found = {}
  for name, x in stored.items():
    if not name.endswith(quantize.STEP):
      step = stored.get(name + quantize.STEP)
      full = jnp.asarray(x).astype(jnp.float32)
      found[name] = full if step is None else full * step
  return unflatten_dict(found, sep='/')
