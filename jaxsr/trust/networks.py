"""Models as functions of integer images, on all devices, and their fingerprints."""

import hashlib
from collections.abc import Mapping

import jax
import numpy as np

from jaxsr.inference.model import Model, load
from jaxsr.inference.upscale import make_upscale
from jaxsr.trust import Enlarge

BICUBIC = 'bicubic'


def networks(
  models: Mapping[str, Model], scale: int, *, ensemble: bool = False
) -> dict[str, Enlarge]:
  """Returns bicubic interpolation and the models.

  Bicubic is computed in floats and rounded once, as the networks are. Pillow's rounds twice, and in
  smooth patches that noise is as large as the film's detail.
  """
  found = {BICUBIC: interpolation(scale)}
  for name, model in models.items():
    if model.architecture != BICUBIC:
      found[name] = enlarger(model, ensemble=ensemble)
  return found


def interpolation(scale: int) -> Enlarge:
  """Returns bicubic interpolation of gray or color images, channel by channel."""
  one = enlarger(load(BICUBIC, scale=scale))

  def enlarge(lr: np.ndarray) -> np.ndarray:
    return np.concatenate([one(lr[..., c : c + 1]) for c in range(lr.shape[-1])], axis=-1)

  return enlarge


def enlarger(model: Model, *, ensemble: bool = False) -> Enlarge:
  """Returns a model as a function of integer images; a batch is divided among the devices."""
  devices = jax.local_devices()
  one = make_upscale(model.network, ensemble=ensemble, devices=devices)
  many = make_upscale(model.network, ensemble=ensemble)
  copies = [jax.device_put(model.variables, device) for device in devices]

  def enlarge(lr: np.ndarray) -> np.ndarray:
    peak = np.iinfo(lr.dtype).max
    gray = lr.mean(-1, keepdims=True) if model.channels < lr.shape[-1] else lr
    images = np.broadcast_to(gray, (*lr.shape[:3], model.channels)).astype(np.float32) / peak
    if len(lr) == 1:
      parts = [one(model.variables, images, np.float32(peak))]
    else:
      share = -(-len(lr) // len(devices))
      padded = np.concatenate([images, images[: share * len(devices) - len(lr)]])
      parts = [
        many(copy, jax.device_put(padded[i * share : (i + 1) * share], device), np.float32(peak))
        for i, (copy, device) in enumerate(zip(copies, devices, strict=True))
      ]
    found = np.concatenate([np.asarray(part) for part in parts])[: len(lr)]
    return np.rint(found * peak).astype(lr.dtype)

  return enlarge


def fingerprint(enlarge: Enlarge) -> str:
  """Returns a digest of a network's output for a fixed input, which tells networks apart."""
  lr = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 1), np.uint8)
  return hashlib.sha256(enlarge(lr).tobytes()).hexdigest()[:16]
