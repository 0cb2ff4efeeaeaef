"""Teachers in a training step, and the further outputs of a student that terms compare."""

from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxsr.compression.slimmable import Size
from jaxsr.losses import GeneratorOutputs
from jaxsr.losses.upcycling import UpcycledBatch
from jaxsr.models.layers import Conv
from jaxsr.training.optimizer import TrainableNetwork
from jaxsr.training.state import Params

Low = Float[Array, 'b h w c']
High = Float[Array, 'b sh sw c']
Trunk = Sequence[Any]  # features [b, h, w, f], or their shapes

NOISE = 0.02  # standard deviation in the inputs that negatives are made from; images are in [0, 1]


class Regressors(nn.Module):
  """1x1 convolutions that bring a student's features to the widths of its teachers' (FitNets).

  `widths` has for each teacher the width at each point. They are trained with the student and
  are not needed after training.
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
  """A frozen network, and at how many points of its trunk its features are compared."""

  network: nn.Module
  points: int

  def apply(self, variables: Any, lr: Low) -> tuple[High, tuple[jax.Array, ...]]:
    """Compute its images and its features."""
    sr, found = cast(Any, self.network.apply(variables, lr, train=False, mutable=['features']))
    trunk = spread(found.get('features', {}).get('trunk', ()), self.points)
    return jax.lax.stop_gradient((sr, trunk))


def spread(trunk: Trunk, points: int) -> tuple[Any, ...]:
  """Choose features at even distances, ending with the last; a short trunk repeats some."""
  count = len(trunk)
  return tuple(trunk[-(-(i + 1) * count // points) - 1] for i in range(points)) if count else ()


class Distiller(NamedTuple):
  """The teachers of a run, and how a student is compared with them.

  Attributes:
    teachers: Frozen networks; empty if nothing is distilled.
    points: The number of points of the trunks at which features are compared.
    regressors: Trained beside the student if a term compares features of the same width.
    sizes: The smaller sizes of a slimmable network, from the smallest on.
  """

  teachers: tuple[Teacher, ...] = ()
  points: int = 0
  regressors: TrainableNetwork | None = None
  sizes: tuple[Size, ...] = ()

  def teach(self, frozen: Sequence[Any], lr: Low) -> tuple[High, list[tuple[jax.Array, ...]]]:
    """Compute the mean image of the teachers, and the features of each."""
    found = [t.apply(v, lr) for t, v in zip(self.teachers, frozen, strict=True)]
    images = [sr for sr, _ in found]
    return sum(images[1:], start=images[0]) / len(images), [trunk for _, trunk in found]


class ForwardPass(NamedTuple):
  """A student's forward pass, which its further outputs are computed from."""

  distiller: Distiller
  student: TrainableNetwork
  params: Params
  batch_stats: Params
  regressor_params: Params
  lr: Low
  upcycled: Sequence[UpcycledBatch]
  step: jax.Array
  trunk: Trunk


def _smaller(forward: ForwardPass) -> tuple[High, ...]:
  """Run the smallest size and one in between (Yu & Huang, ICCV 2019: the sandwich rule)."""

  def run(size: Size) -> Callable[[Params], jax.Array]:
    return lambda params: jnp.asarray(
      size.network.apply(size.cut.take({'params': params}), forward.lr, train=True)
    )

  least, *between = map(run, forward.distiller.sizes)
  found = [least(forward.params)]
  if between:
    found.append(jax.lax.switch(forward.step % len(between), between, forward.params))
  return tuple(found)


def _features(forward: ForwardPass) -> tuple[jax.Array, ...]:
  return spread(forward.trunk, forward.distiller.points)


def _regressed(forward: ForwardPass) -> tuple[jax.Array, ...]:
  regressors = forward.distiller.regressors
  assert regressors
  return regressors.apply(forward.regressor_params, {}, _features(forward))[0]


def _upcycled(forward: ForwardPass) -> tuple[High, ...]:
  apply = lambda lr: forward.student.apply(forward.params, forward.batch_stats, lr)[0]  # noqa: E731
  return tuple(batch.undo(apply(batch.student_lr)) for batch in forward.upcycled)


# The further outputs of a student, by their names in the `needs` of terms.
OUTPUTS: dict[str, Callable[[ForwardPass], tuple[jax.Array, ...]]] = {
  'features': _features,
  'regressed': _regressed,
  'smaller': _smaller,
  'upcycled': _upcycled,
}


def forward(
  needs: Set[str],
  distiller: Distiller,
  student: TrainableNetwork,
  variables: tuple[Params, Params, Params],
  lr: Low,
  *,
  upcycled: Sequence[UpcycledBatch] = (),
  step: jax.Array,
) -> tuple[GeneratorOutputs, Params]:
  """Run a student with the further outputs that terms need.

  Args:
    needs: Names of outputs; those that are not in `OUTPUTS` are ignored.
    distiller: The teachers and the smaller sizes.
    student: The generator.
    variables: Its parameters, its BatchNorm statistics, and the parameters of the regressors.
    lr: Images in [0, 1].
    upcycled: Further inputs, for the output `upcycled`.
    step: The number of the step, which chooses the size in between for the output `smaller`.

  Returns:
    The outputs, and the next BatchNorm statistics.
  """
  params, stats, regressor_params = variables
  sr, next_stats, trunk = student.apply_with_features(params, stats, lr)
  done = ForwardPass(distiller, student, params, stats, regressor_params, lr, upcycled, step, trunk)
  extra = {name: compute(done) for name, compute in OUTPUTS.items() if name in needs}
  return GeneratorOutputs(sr, extra), next_stats


def negatives(network: nn.Module, variables: Any, lr: Low, key: jax.Array) -> tuple[High, ...]:
  """Enlarge degraded inputs, one noisy and one blurred, by the average of a student."""
  noisy = lr + NOISE * jax.random.normal(key, lr.shape)
  around = jnp.pad(lr, ((0, 0), (1, 1), (1, 1), (0, 0)), mode='edge')
  rows = (around[:, :-2] + 2 * around[:, 1:-1] + around[:, 2:]) / 4
  blurred = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
  enlarge = lambda x: jnp.asarray(network.apply(variables, x, train=False))  # noqa: E731
  return tuple(jax.lax.stop_gradient(enlarge(x)) for x in (noisy, blurred))
