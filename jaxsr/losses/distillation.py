"""What a student takes over from a teacher beside its images. One value an image."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr.losses.perceptual import relative

Image = Float[Array, 'b h w c']
Features = Float[Array, 'b h w f']


def feature(student: Features, teacher: Features) -> Float[Array, ' b']:
  """Compare features, the student's brought to the teacher's width by an adapter.

  Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015; here in parts of the squared size of
  the teacher's, so that the weight does not depend on the layer.
  """
  return relative(student, teacher)


def affinity(
  student: Float[Array, 'b h w f'], teacher: Float[Array, 'b h w g']
) -> Float[Array, ' b']:
  """Compare how alike each two places of an image are, by the cosine of their features.

  He et al., FAKD: Feature-Affinity Based Knowledge Distillation for Efficient Image
  Super-Resolution, ICIP 2020. The widths need not be the same. The matrices have (h w)^2 elements;
  one image at a time has them, in the backward pass, too.
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
  """Draw near to the teacher's image and away from the student's own past ones, by a ratio.

  Zhou et al., Dynamic Contrastive Knowledge Distillation for Efficient Image Restoration, AAAI
  2025: the negatives are what the student's average makes of degraded inputs. The authors compare
  features of a VGG, this the images.
  """
  near = jnp.abs(sr - positive).mean((1, 2, 3))
  far = sum(jnp.abs(sr - negative).mean((1, 2, 3)) for negative in negatives)
  return near / (far + 1e-6)
