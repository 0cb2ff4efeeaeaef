"""Export a model as StableHLO, one file for CPUs, NVIDIA GPUs and TPUs."""

from typing import Any

import jax
import numpy as np

from jaxsr import ops
from jaxsr.export.exportable import Exportable
from jaxsr.export.rounding import restore

PLATFORMS = ('cpu', 'cuda', 'tpu')


def serialize(exportable: Exportable) -> tuple[bytes, float]:
  """Export a model and run the result on this machine beside the model.

  Returns:
    The content of the file, and the largest difference relative to the largest value.

  Raises:
    MismatchError: The result differs from the model.
  """

  def upscale(lr: jax.Array, *levels: jax.Array) -> Any:
    return exportable.apply(restore(exportable.stored), lr, *levels)

  facts = exportable.facts
  upscale.__name__ = f'jaxsr_{facts["network"]}_x{facts["scale"]}_{facts["weights"]}'
  with ops.plain():
    export = jax.export.export(jax.jit(upscale), platforms=PLATFORMS)
    exported = export(*exportable.inputs.values())
  content = bytes(exported.serialize())
  run = jax.export.deserialize(bytearray(content)).call
  return content, exportable.check(lambda *inputs: np.asarray(run(*inputs)))
