"""What a student and its teachers make of a batch beside their images, as far as a phase asks."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from jaxsr.compression.slimmable import Size
from jaxsr.data.batch import Batch
from jaxsr.losses import DISTILL, SLIMMABLE, Pair
from jaxsr.models.layers import Conv
from jaxsr.training.optimizer import TrainableNetwork

Low = Float[Array, 'b h w c']
High = Float[Array, 'b sh sw c']
Trunk = Sequence[Any]  # features [b, h, w, f], or their shapes

NOISE = 0.02  # of the inputs that negatives are made from, in parts of the range
_FEATURES = ('distill_affinity', 'distill_feature')


@struct.dataclass
class Made:
  """What a generator made: its image, and for terms that ask, what they compare.

  `trunk` are its features [b, h, w, f], `hints` the same through adapters, `views` its images of
  further inputs, `smaller` those of its smaller selves. A gradient has the same shape, and so may a
  tree of anything else.
  """

  sr: Any  # [b, sh, sw, c]
  trunk: tuple[Any, ...] = ()
  hints: tuple[Any, ...] = ()
  views: tuple[Any, ...] = ()
  smaller: tuple[Any, ...] = ()


class Adapters(nn.Module):
  """Bring a student's features to the widths of its teachers' by 1x1 convolutions.

  `widths` has for each teacher the width at each point. They are trained with the student and
  thrown away after.
  """

  widths: Sequence[Sequence[int]]

  @nn.compact
  def __call__(self, trunk: Trunk, *, train: bool) -> tuple[jax.Array, ...]:
    return tuple(
      Conv(width, (1, 1), name=f'teacher_{t}_point_{p}')(x)
      for t, widths in enumerate(self.widths)
      for p, (x, width) in enumerate(zip(trunk, widths, strict=True))
    )


class Teacher(NamedTuple):
  """A frozen network, and at how many points of its trunk its features are seen."""

  network: nn.Module
  points: int

  def see(self, variables: Any, lr: Low) -> tuple[High, tuple[jax.Array, ...]]:
    """Compute its image and its features."""
    sr, found = cast(Any, self.network.apply(variables, lr, train=False, mutable=['features']))
    trunk = spread(found.get('features', {}).get('trunk', ()), self.points)
    return jax.lax.stop_gradient((sr, trunk))


def spread(trunk: Trunk, points: int) -> tuple[Any, ...]:
  """Take features at even distances, the last among them; short trunks give some twice."""
  count = len(trunk)
  return tuple(trunk[-(-(i + 1) * count // points) - 1] for i in range(points)) if count else ()


class Lesson(NamedTuple):
  """What a run distils from and with.

  `sizes` are a slimmable network's, from the smallest on.
  """

  teachers: tuple[Teacher, ...] = ()
  points: int = 0
  adapters: TrainableNetwork | None = None
  sizes: tuple[Size, ...] = ()

  def make(
    self,
    terms: Sequence[str],
    student: TrainableNetwork,
    variables: tuple[Any, Any, Any],
    batch: Batch,
    views: 'Sequence[View]',
    step: jax.Array,
  ) -> tuple[Made, Any]:
    """Run the student as far as the terms ask; return its next BatchNorm statistics, too.

    `variables` are its parameters, its statistics, and the parameters of the adapters.
    """
    params, stats, adapting = variables
    sr, next_stats, trunk = student.apply_with_features(params, stats, batch['lr'])
    made: dict[str, Any] = {'sr': sr}
    if needs_features(terms):
      made['trunk'] = spread(trunk, self.points)
    if 'distill_feature' in terms:
      assert self.adapters
      made['hints'] = self.adapters.apply(adapting, {}, made['trunk'])[0]
    if 'distill_upcycle' in terms:
      made['views'] = tuple(v.undo(student.apply(params, stats, v.input)[0]) for v in views)
    if SLIMMABLE in terms:
      made['smaller'] = self._smaller(params, batch['lr'], step)
    return Made(**made), next_stats

  def _smaller(self, params: Any, lr: Low, step: jax.Array) -> tuple[High, ...]:
    """Run the smallest network and one in between (Yu & Huang, ICCV 2019: the sandwich rule)."""

    def run(size: Size) -> Any:
      return lambda params: jnp.asarray(
        size.network.apply(size.cut.take({'params': params}), lr, train=True)
      )

    least, *between = map(run, self.sizes)
    found = [least(params)]
    if between:
      found.append(jax.lax.switch(step % len(between), between, params))
    return tuple(found)

  def label(self, frozen: Sequence[Any], lr: Low) -> tuple[High, list[tuple[jax.Array, ...]]]:
    """Give the teachers' mean image, and the features of each."""
    seen = [t.see(v, lr) for t, v in zip(self.teachers, frozen, strict=True)]
    images = [sr for sr, _ in seen]
    return sum(images[1:], start=images[0]) / len(images), [trunk for _, trunk in seen]

  def pairs(
    self, term: str, made: Made, views: 'Sequence[View]', frozen: Any, batch: Batch
  ) -> tuple[Pair, ...]:
    """Lay side by side what a term compares one by one."""
    if term == SLIMMABLE:
      whole = jax.lax.stop_gradient(made.sr)
      return tuple(Pair(sr, whole) for sr in made.smaller)
    if term == 'distill_upcycle':
      labels = [label for view in views for label in view.labels(self, frozen)]
      seen = [sr for view, sr in zip(views, made.views, strict=True) for _ in range(view.truths)]
      return tuple(map(Pair, seen, labels))
    trunks = self.label(frozen, batch['lr'])[1]
    flat = [x for trunk in trunks for x in trunk]
    own = made.hints if term == 'distill_feature' else made.trunk * len(trunks)
    return tuple(map(Pair, own, flat))


class View(NamedTuple):
  """An input that has been made from a batch, and how a student sees it.

  The student is shown `input`, a teacher `plain`; the marks of `turned` say for each image whether
  the student's is inverted, mirrored up and down, left and right, or transposed. `truth` is the
  true image where there is one.
  """

  plain: Low
  turned: jax.Array | None = None
  truth: High | None = None

  @property
  def input(self) -> Low:
    """Give what the student sees."""
    return self.plain if self.turned is None else _turn(self.plain, self.turned)

  @property
  def truths(self) -> int:
    """Count its labels."""
    return 1 + (self.truth is not None)

  def undo(self, sr: High) -> High:
    """Turn what the student made back."""
    return sr if self.turned is None else _turn(sr, self.turned, back=True)

  def labels(self, lesson: Lesson, frozen: Any) -> list[High]:
    """Give what the student's image should be: the teachers' and the truth."""
    return [lesson.label(frozen, self.plain)[0]] + ([] if self.truth is None else [self.truth])


def upcycle(batch: Batch, key: jax.Array, *, scale: int) -> list[View]:
  """Make new inputs of a batch, as DUKD does.

  Zhang et al., Data Upcycling Knowledge Distillation for Image Super-Resolution, 2023. Zoomed in:
  a part of the high-resolution image is taken for a low-resolution one, and shown to the student
  inverted, mirrored or transposed, each with a chance of 0.3. Zoomed out: the low resolution is
  made smaller still, where the truth is known.
  """
  lr, hr = batch['lr'], batch['hr']
  size = lr.shape[1:3]
  keys = jax.random.split(key)
  corner = jax.random.randint(keys[0], (2,), 0, scale) * jnp.asarray(size)
  start = (0, corner[0], corner[1], 0)
  part = jax.lax.dynamic_slice(hr, start, (hr.shape[0], *size, hr.shape[3]))
  turned = jax.random.bernoulli(keys[1], 0.3, (4, hr.shape[0]))
  views = [View(part, turned=turned)]
  if not any(side % scale for side in size):
    small = (lr.shape[0], size[0] // scale, size[1] // scale, lr.shape[3])
    views.append(View(jax.image.resize(lr, small, 'cubic', antialias=True), truth=lr))
  return views


def _turn(x: Low, turned: jax.Array, *, back: bool = False) -> Low:
  """Apply the marked changes to each image, or in the opposite order, which takes them back."""
  changes = (
    lambda x: 1 - x,
    lambda x: x[:, ::-1],
    lambda x: x[:, :, ::-1],
    lambda x: x.swapaxes(1, 2),
  )
  order = list(zip(changes, turned, strict=True))
  for change, mark in reversed(order) if back else order:
    x = jnp.where(mark[:, None, None, None], change(x), x)
  return x


def negatives(network: nn.Module, history: Any, lr: Low, key: jax.Array) -> tuple[High, ...]:
  """Enlarge degraded inputs, one noisy and one blurred, by a student's average."""
  noisy = lr + NOISE * jax.random.normal(key, lr.shape)
  around = jnp.pad(lr, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  rows = (around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:]) / 4
  blurred = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
  enlarge = lambda x: jnp.asarray(network.apply(history, x, train=False))  # noqa: E731
  return tuple(jax.lax.stop_gradient(enlarge(x)) for x in (noisy, blurred))


def needs_teacher(terms: Collection[str]) -> bool:
  """Tell whether one of the terms asks for a teacher."""
  return bool(set(DISTILL) & set(terms))


def needs_features(terms: Collection[str]) -> bool:
  """Tell whether one of the terms compares features with a teacher's."""
  return bool(set(_FEATURES) & set(terms))
