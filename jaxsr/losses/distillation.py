"""Distances between a student and a teacher, beyond pixel losses. One value per image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr.metrics import feature_distance

Image = Float[Array, 'b h w c']
Features = Float[Array, 'b h w f']


def feature(student: Features, teacher: Features) -> Float[Array, ' b']:
  """Compute the squared distance of features, the student's brought to the teacher's width.

  Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015. Here it is divided by the squared
  norm of the teacher's features, so that the weight does not depend on the layer.
  """
  return feature_distance(student, teacher)


def affinity(
  student: Float[Array, 'b h w f'], teacher: Float[Array, 'b h w g']
) -> Float[Array, ' b']:
  """Compare the cosine similarities between all pairs of positions of an image.

  He et al., FAKD: Feature-Affinity Based Knowledge Distillation for Efficient Image
  Super-Resolution, ICIP 2020. The widths may differ. The matrices have (h w)^2 elements; they are
  computed for one image at a time, in the backward pass as well.
  """

  @jax.checkpoint
  def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    similar = [jnp.einsum('ic,jc->ij', x, x) for x in map(_unit, pair)]
    return jnp.abs(similar[0] - similar[1]).mean()

  return jax.lax.map(one, (student.astype(jnp.float32), teacher.astype(jnp.float32)))


def _unit(x: Float[Array, 'h w f']) -> Float[Array, 'hw f']:
  x = x.reshape(-1, x.shape[-1])
  return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)


def contrast(sr: Image, positive: Image, negatives: Sequence[Image]) -> Float[Array, ' b']:
  """Compute the distance to the teacher's image divided by that to the negatives.

  Zhou et al., Dynamic Contrastive Knowledge Distillation for Efficient Image Restoration, AAAI
  2025: the negatives are images of degraded inputs by the student's average. The authors compare
  features of a VGG, this function compares images.
  """
  near = jnp.abs(sr - positive).mean((1, 2, 3))
  far = sum(jnp.abs(sr - negative).mean((1, 2, 3)) for negative in negatives)
  return near / (far + 1e-6)
