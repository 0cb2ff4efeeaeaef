"""A trial of imported weights: PSNR on one image, beside bicubic.

Some options, such as the range of the images, cannot be read from tensors. A network with the wrong
options still returns an image; the comparison with bicubic reveals it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxsr import models, ops


class Result(NamedTuple):
  """PSNR in dB without a border of `scale` pixels; output that is not finite has -inf dB."""

  psnr: float
  bicubic: float
  is_bicubic: bool  # whether no pixel far from the edges differs by half a level of 255


def run(network: models.Network, variables: Any, image: Float[np.ndarray, 'h w']) -> Result:
  """Compare a network with bicubic on an image that is shrunk and upscaled.

  Args:
    network: The network.
    variables: Its variables.
    image: A gray image in [0, 1]; it is shrunk by bicubic interpolation, and repeated for each
      channel of the network.
  """
  scale = network.scale
  height, width = (n // scale for n in image.shape)
  cut = np.asarray(image[: height * scale, : width * scale], np.float32)[None, :, :, None]
  hr = jnp.repeat(jnp.asarray(cut), network.channels, axis=-1)

  @jax.jit
  def compute(variables: Any, hr: jax.Array) -> tuple[jax.Array, jax.Array]:
    lr = jnp.clip(ops.resize(hr, height, width, method='cubic'), 0, 1)
    sr = network.apply(variables, lr, train=False)
    pair = jnp.stack([jnp.asarray(sr), ops.upsample(lr, scale)])
    error = jnp.square(jnp.clip(pair, 0, 1) - hr)[:, :, scale:-scale, scale:-scale]
    mse = jnp.where(jnp.isfinite(pair).all((1, 2, 3, 4)), error.mean((1, 2, 3, 4)), jnp.inf)
    inner = pair[:, :, 4 * scale : -4 * scale, 4 * scale : -4 * scale]  # edges have several rules
    return mse, jnp.abs(inner[0] - inner[1]).max()

  mse, difference = compute(variables, hr)
  own, bicubic = (float(-10 * np.log10(np.maximum(each, 1e-10))) for each in mse)
  return Result(own, bicubic, bool(difference < 0.5 / 255))
