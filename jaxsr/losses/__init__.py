"""Loss terms by the names that a config weighs them with.

A term is a pure function of `Outputs` and the batch. It returns one value for each element
(b h w c), which the objective averages over the batch's mask, or one for each image (b,).

`CONTENT` terms need the features of the network that they are named after, `adversarial` a
discriminator's logits, `DISTILL` terms a teacher, `slimmable` a network's own smaller selves; the
step computes what the chosen terms need.
"""

from collections.abc import Callable

import jax
from flax import struct
from jaxtyping import Array, Float

from jaxsr.data.batch import Batch
from jaxsr.losses import adversarial, distillation, perceptual, pixel, structural

ADVERSARIAL = 'adversarial'
CONTENT = ('mobilenet_v2', 'vgg16', 'vgg19')
DISTILL = (
  'distill_affinity',
  'distill_contrast',
  'distill_feature',
  'distill_output',
  'distill_output_mse',
  'distill_upcycle',
)
SLIMMABLE = 'slimmable'


@struct.dataclass
class Judged:
  """A discriminator's logits, and the form of the adversarial loss."""

  real: Float[Array, 'b 1']
  fake: Float[Array, 'b 1']
  form: str = struct.field(pytree_node=False)


@struct.dataclass
class Compared:
  """The features of both images, and the distance to take."""

  sr: Float[Array, 'b y x f']
  hr: Float[Array, 'b y x f']
  distance: str = struct.field(pytree_node=False)


@struct.dataclass
class Pair:
  """What a student made, and what it should have: images, or features."""

  student: Float[Array, 'b h w f']
  teacher: Float[Array, 'b h w g']


@struct.dataclass
class Outputs:
  """What the step computed for the terms: `sr`, and for those that ask, what was made of it.

  `patch` is `sr` without its margin, as `batch['patch']` is of the high resolution. `teacher` is
  the teachers' mean image, `pairs` what a term compares one by one, `negatives` what it moves off.
  """

  sr: Float[Array, 'b h w c']
  patch: Float[Array, 'b ph pw c']
  judged: Judged | None = None
  features: dict[str, Compared] = struct.field(default_factory=dict)
  teacher: Float[Array, 'b h w c'] | None = None
  pairs: tuple[Pair, ...] = ()
  negatives: tuple[Float[Array, 'b h w c'], ...] = ()


Term = Callable[[Outputs, Batch], jax.Array]


def _adversarial(outputs: Outputs, batch: Batch) -> jax.Array:
  judged = outputs.judged
  assert judged is not None
  return adversarial.generator_loss(judged.real, judged.fake, form=judged.form)


def _content(name: str) -> Term:
  def term(outputs: Outputs, batch: Batch) -> jax.Array:
    found = outputs.features[name]
    return perceptual.content(found.sr, found.hr, distance=found.distance)

  return term


def _taught(compare: Callable[[jax.Array, jax.Array], jax.Array]) -> Term:
  def term(outputs: Outputs, batch: Batch) -> jax.Array:
    assert outputs.teacher is not None
    return compare(outputs.sr, outputs.teacher)

  return term


def _paired(compare: Callable[[jax.Array, jax.Array], jax.Array]) -> Term:
  """Average over what the term compares one by one."""

  def term(outputs: Outputs, batch: Batch) -> jax.Array:
    values = [compare(pair.student, pair.teacher) for pair in outputs.pairs]
    return sum(values[1:], start=values[0]) / len(values)

  return term


def _contrast(outputs: Outputs, batch: Batch) -> jax.Array:
  assert outputs.teacher is not None
  return distillation.contrast(outputs.sr, outputs.teacher, outputs.negatives)


TERMS: dict[str, Term] = {
  'adversarial': _adversarial,
  'charbonnier': lambda outputs, batch: pixel.charbonnier(outputs.sr, batch['hr']),
  'distill_affinity': _paired(distillation.affinity),
  'distill_contrast': _contrast,
  'distill_feature': _paired(distillation.feature),
  'distill_output': _taught(pixel.l1),
  'distill_output_mse': _taught(pixel.mse),
  'distill_upcycle': _paired(lambda sr, label: pixel.l1(sr, label).mean((1, 2, 3))),
  'frequency': lambda outputs, batch: structural.frequency(outputs.patch, batch['patch']),
  'gradient': lambda outputs, batch: structural.gradient(outputs.patch, batch['patch']),
  'l1': lambda outputs, batch: pixel.l1(outputs.sr, batch['hr']),
  'mobilenet_v2': _content('mobilenet_v2'),
  'mse': lambda outputs, batch: pixel.mse(outputs.sr, batch['hr']),
  'slimmable': _paired(pixel.mse),
  'ssim': lambda outputs, batch: structural.ssim(outputs.patch, batch['patch']),
  'tv': lambda outputs, batch: structural.tv(outputs.patch),
  'tv_squared': lambda outputs, batch: structural.tv_squared(outputs.patch),
  'vgg16': _content('vgg16'),
  'vgg19': _content('vgg19'),
}
