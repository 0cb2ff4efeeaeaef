"""Loss terms, by the names that a config weights them with.

A term is a function of a `LossContext`. It returns one value per element (b h w c), which `reduce`
averages over the batch's mask, or one value per image (b,).

To add a term, write its formula in a module of this folder and add a line to `TERMS`; the config,
the schedule, the curves and the tests read that table, and older runs resume without the term. If
the formula needs an input that `LossContext` does not have yet, add a property. If the generator
has to compute more than its image, add a line to `training.distillation.OUTPUTS` as well, and name
it in the term's `needs`.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
from flax import struct
from jaxtyping import Array, Float

from jaxsr import metrics
from jaxsr.data.batch import Batch
from jaxsr.losses import adversarial, distillation, perceptual, pixel, structural
from jaxsr.losses.upcycling import UpcycledBatch

ADVERSARIAL = 'adversarial'
CONTENT = ('mobilenet_v2', 'vgg16', 'vgg19')  # feature networks, and the terms that compare by them

Image = Float[Array, 'b sh sw c']
Pair = tuple[jax.Array, jax.Array]  # the student's, the teacher's


@struct.dataclass
class GeneratorOutputs:
  """The generator's images, and the further outputs that terms need, by name.

  A gradient with respect to the outputs has the same structure.
  """

  sr: Any  # [b, sh, sw, c]
  extra: dict[str, tuple[Any, ...]] = struct.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LossContext:
  """Lazily computes the inputs of each loss term.

  Attributes:
    outputs: The generator's outputs, which terms are differentiated with respect to.
    batch: float32 images in [0, 1]: `lr`, `hr`, `mask`, and `teacher` if the teacher's images were
      computed in advance.
    margin: Pixels of `hr` on each side that only the generator sees.
    networks: Functions of the networks that are not updated with the generator, by name: each
      feature network of an image, `discriminator` of real and generated images, `teacher` of `lr`
      (its image, and its features), `negatives` of `lr`.
    options: The form of the adversarial loss and the distance of features, by term; `real` is
      'hr' or 'teacher', the images that the discriminator takes for real.
    upcycled: Further inputs made from the batch, for Data Upcycling Knowledge Distillation.
  """

  outputs: GeneratorOutputs
  batch: Batch
  margin: int
  networks: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)
  options: Mapping[str, str] = dataclasses.field(default_factory=dict)
  upcycled: Sequence[UpcycledBatch] = ()

  @property
  def sr(self) -> Image:
    """The generator's images."""
    return self.outputs.sr

  @property
  def hr(self) -> Image:
    """The true images."""
    return self.batch['hr']

  @cached_property
  def patch(self) -> Image:
    """The generator's images without their margin."""
    return metrics.shave(self.sr, self.margin)

  @cached_property
  def hr_patch(self) -> Image:
    """The true images without their margin."""
    return metrics.shave(self.hr, self.margin)

  @cached_property
  def teacher(self) -> Image:
    """The mean image of the teachers."""
    if 'teacher' in self.batch:
      return self.batch['teacher']
    return self.networks['teacher'](self.batch['lr'])[0]

  @cached_property
  def real(self) -> Image:
    """The images that the discriminator takes for real, without their margin."""
    if self.options.get('real') == 'teacher':
      return metrics.shave(self.teacher, self.margin)
    return self.hr_patch

  @cached_property
  def logits(self) -> tuple[adversarial.Logits, adversarial.Logits]:
    """The discriminator's logits of real and of generated images."""
    return self.networks['discriminator'](self.real, self.patch)

  def features(self, network: str) -> tuple[perceptual.Features, perceptual.Features]:
    """Returns a feature network's features of the generator's and of the true images."""
    extract = self.networks[network]
    return extract(self.patch), extract(self.hr_patch)

  @cached_property
  def teacher_features(self) -> tuple[jax.Array, ...]:
    """The features of all teachers, at each point of the first, then of the second, and so on."""
    return tuple(itertools.chain(*self.networks['teacher'](self.batch['lr'])[1]))

  @cached_property
  def negatives(self) -> tuple[Image, ...]:
    """Degraded images that a contrastive term moves away from."""
    return self.networks['negatives'](self.batch['lr'])

  @cached_property
  def feature_pairs(self) -> list[Pair]:
    """The generator's features beside those of each teacher."""
    own = itertools.cycle(self.outputs.extra['features'])
    return list(zip(own, self.teacher_features, strict=False))

  @cached_property
  def regressed_pairs(self) -> list[Pair]:
    """The generator's features, brought to the width of each teacher's, beside the teacher's."""
    return list(zip(self.outputs.extra['regressed'], self.teacher_features, strict=True))

  @cached_property
  def upcycled_pairs(self) -> list[Pair]:
    """The generator's images of upcycled inputs, each beside the teacher's and the true one."""
    pairs = []
    for batch, sr in zip(self.upcycled, self.outputs.extra['upcycled'], strict=True):
      pairs.append((sr, self.networks['teacher'](batch.lr)[0]))
      pairs += [] if batch.hr is None else [(sr, batch.hr)]
    return pairs

  @cached_property
  def smaller_pairs(self) -> list[Pair]:
    """The images of a slimmable network's smaller sizes, each beside that of the full network."""
    full = jax.lax.stop_gradient(self.sr)
    return [(sr, full) for sr in self.outputs.extra['smaller']]


class Term(NamedTuple):
  """A loss term, and the networks and outputs that it needs.

  `needs` may name `discriminator`, `teacher`, a feature network, and further outputs of the
  generator (`training.distillation.OUTPUTS`).
  """

  compute: Callable[[LossContext], jax.Array]
  needs: tuple[str, ...] = ()


def _content(network: str) -> Term:
  return Term(
    lambda c: perceptual.content(*c.features(network), distance=c.options[network]), (network,)
  )


def _mean(compare: Callable[[jax.Array, jax.Array], jax.Array], pairs: Iterable[Pair]) -> jax.Array:
  """Compute the mean of a comparison over pairs."""
  values = [compare(student, teacher) for student, teacher in pairs]
  return sum(values[1:], start=values[0]) / len(values)


def _l1_per_image(sr: jax.Array, target: jax.Array) -> jax.Array:
  return pixel.l1(sr, target).mean((1, 2, 3))


TERMS: dict[str, Term] = {
  'adversarial': Term(
    lambda c: adversarial.generator_loss(*c.logits, form=c.options[ADVERSARIAL]),
    ('discriminator',),
  ),
  'charbonnier': Term(lambda c: pixel.charbonnier(c.sr, c.hr)),
  'distill_affinity': Term(
    lambda c: _mean(distillation.affinity, c.feature_pairs), ('teacher', 'features')
  ),
  'distill_contrast': Term(
    lambda c: distillation.contrast(c.sr, c.teacher, c.negatives), ('teacher',)
  ),
  'distill_feature': Term(
    lambda c: _mean(distillation.feature, c.regressed_pairs), ('teacher', 'regressed')
  ),
  'distill_output': Term(lambda c: pixel.l1(c.sr, c.teacher), ('teacher',)),
  'distill_output_mse': Term(lambda c: pixel.mse(c.sr, c.teacher), ('teacher',)),
  'distill_upcycle': Term(
    lambda c: _mean(_l1_per_image, c.upcycled_pairs), ('teacher', 'upcycled')
  ),
  'frequency': Term(lambda c: structural.frequency(c.patch, c.hr_patch)),
  'gradient': Term(lambda c: structural.gradient(c.patch, c.hr_patch)),
  'l1': Term(lambda c: pixel.l1(c.sr, c.hr)),
  'mobilenet_v2': _content('mobilenet_v2'),
  'mse': Term(lambda c: pixel.mse(c.sr, c.hr)),
  'slimmable': Term(lambda c: _mean(pixel.mse, c.smaller_pairs), ('smaller',)),
  'ssim': Term(lambda c: structural.ssim(c.patch, c.hr_patch)),
  'tv': Term(lambda c: structural.tv(c.patch)),
  'tv_squared': Term(lambda c: structural.tv_squared(c.patch)),
  'vgg16': _content('vgg16'),
  'vgg19': _content('vgg19'),
}


def needing(need: str) -> tuple[str, ...]:
  """Returns the names of the terms that need something."""
  return tuple(name for name, term in TERMS.items() if need in term.needs)


def reduce(values: jax.Array, mask: Float[Array, 'b sh sw 1']) -> Float[Array, '']:
  """Average a term: over the mask's pixels if it has one value per element, else over images."""
  if values.ndim != 4:
    return values.mean()
  return (values * mask).sum() / (mask.sum() * values.shape[-1])
