"""The networks that are compared, with their sizes and batches, and the sides of a comparison."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxsr.analysis import Work

SCALE = 4
LEARNING_RATE = 1e-4
ADVERSARIAL = 1e-3  # weight of the adversarial loss relative to the absolute error
FOLDED = ('span',)  # for inference, as in the packages


class Case(NamedTuple):
  """A network: its options, and its training batch of low-resolution crops."""

  options: dict[str, Any]
  batch: int
  patch: int
  network: str = ''  # if it differs from the case's name
  adversarial: bool = False


CASES = {
  'edsr': Case({'blocks': 8}, 8, 48),
  'rdn': Case({'blocks': 4, 'layers': 4, 'growth': 32}, 8, 32),
  'srresnet': Case({}, 8, 24),
  'srgan': Case({}, 8, 24, network='srresnet', adversarial=True),
  'swift_srgan': Case({}, 8, 24),
  'span': Case({}, 8, 48),
  'vdsr': Case({}, 8, 12),
  'swinir': Case({'features': 60, 'depths': (6, 6, 6, 6), 'upsampler': 'direct'}, 4, 32),
}
GPU_CASES = {  # of sizes that saturate a GPU
  'gpu_edsr': Case({'blocks': 16}, 64, 48, network='edsr'),
  'gpu_rdn': Case({'blocks': 16, 'layers': 8, 'growth': 64}, 32, 32, network='rdn'),
  'gpu_srresnet': Case({}, 64, 24, network='srresnet'),
  'gpu_swift_srgan': Case({}, 64, 24, network='swift_srgan'),
  'gpu_srgan': Case({}, 64, 24, network='srresnet', adversarial=True),
  'gpu_span': Case({}, 64, 48, network='span'),
  'gpu_swinir': Case(
    {'features': 60, 'depths': (6, 6, 6, 6), 'upsampler': 'direct'}, 32, 32, network='swinir'
  ),
  'gpu_rrdb': Case({'blocks': 8}, 16, 32, network='rrdb'),
}
TOY_CASES = {  # for a test of the GPU's benchmark on a CPU
  'toy_edsr': Case({'blocks': 1}, 2, 8, network='edsr'),
  'toy_rrdb': Case({'blocks': 1}, 1, 8, network='rrdb'),
}
ALL_CASES = CASES | GPU_CASES | TOY_CASES


class Side(NamedTuple):
  """One side of a comparison: `run` does the work once and waits for its end."""

  run: Callable[..., Any]  # a training step accepts another batch; waits for the end
  outcome: dict[str, Any]  # results that must agree on both sides
  compiled_in: float  # seconds
  bytes: int = 0  # of the program's memory, as reported by XLA
  work: Callable[[], Work] = lambda: Work(0, 0)  # of one run, counted from the trace


def make_batch(case: Case, batch: int) -> dict[str, np.ndarray]:
  """Draw a random batch of 8-bit crops; `batch` 0 is the case's own size."""
  rng = np.random.default_rng(0)
  n, side = batch or case.batch, case.patch
  hr = rng.integers(0, 256, (n, SCALE * side, SCALE * side, 1), np.uint8)
  lr = rng.integers(0, 256, (n, side, side, 1), np.uint8)
  return {'lr': lr, 'hr': hr, 'mask': np.ones_like(hr)}


def make_images(batch: int, side: int = 256) -> np.ndarray:
  """Draw random square images; a batch of 0 is one image."""
  return np.random.default_rng(0).random((batch or 1, side, side, 1), dtype=np.float32)
