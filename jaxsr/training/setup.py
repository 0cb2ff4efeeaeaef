"""Build a run from its config: networks, optimizers, loss terms and the first state."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsr import perceptual, sharding
from jaxsr.compression import slimmable
from jaxsr.config import Config, build_network, make_plan
from jaxsr.errors import UserError, first_line
from jaxsr.inference.model import Model
from jaxsr.losses import ADVERSARIAL, CONTENT
from jaxsr.losses.schedule import Plan
from jaxsr.models import PRECISIONS
from jaxsr.models.discriminator import Discriminator
from jaxsr.perceptual import FeatureExtractor, download, weights
from jaxsr.training import distillation, optimizer, state, teachers
from jaxsr.training.distillation import Distiller, Regressors, Teacher
from jaxsr.training.gan import CollapseMonitor, DiscriminatorTrainer
from jaxsr.training.optimizer import TrainableNetwork
from jaxsr.training.state import State
from jaxsr.training.step import StepComponents


class Experiment(NamedTuple):
  """The parts of a run, built from its config; none of them changes during the run.

  Attributes:
    init: Makes the first state; jitted.
    shapes: The shapes and shardings of the state.
    components: The networks, terms and optimizers that the steps are built from.
    plan: The phases of the run.
    frozen: Variables of the feature networks by name, and of the `teachers`.
    monitor: Detects a collapse of the discriminator.
    teachers: The loaded teachers.
    mesh: The devices.
  """

  init: Any  # () -> State
  shapes: State
  components: StepComponents
  plan: Plan
  frozen: dict[str, Any]
  monitor: CollapseMonitor
  teachers: tuple[Model, ...]
  mesh: Mesh

  @property
  def network(self) -> Any:
    """The generator."""
    return self.components.generator.network

  @property
  def perceptual(self) -> tuple[FeatureExtractor, Any] | None:
    """The first feature network with its variables, which validation compares images by."""
    extractors = self.components.extractors
    return next(((x, self.frozen[name]) for name, x in extractors.items()), None)


def assemble(config: Config, mesh: Mesh) -> Experiment:
  """Build the networks and optimizers that a config describes; nothing is compiled yet.

  Raises:
    UserError: The options do not make a network, or the weights of a feature network or a teacher
      cannot be loaded.
  """
  plan = make_plan(config)
  everywhere = sharding.replicated(mesh)
  extractors, frozen = _load_extractors(config, plan)
  generator = _generator(config, plan)
  needed = 'teacher' in plan.needs or config.adversarial.real == 'teacher'
  loaded = teachers.load(config) if needed else ()
  frozen['teachers'] = [one.variables for one in loaded]
  components = StepComponents(
    generator=generator,
    discriminator=_discriminator(config, plan),
    extractors=extractors,
    distiller=_distiller(config, plan, generator, loaded),
    options={
      ADVERSARIAL: config.adversarial.form,
      'real': config.adversarial.real,
      **{name: extractor.distance for name, extractor in extractors.items()},
    },
    margin=config.data.margin * config.scale,
    ema_decay=config.ema,
    seed=config.seed,
  )
  make = lambda: _init(config, components)  # noqa: E731
  try:
    shapes = jax.eval_shape(make)
  except (ValueError, TypeError, ZeroDivisionError) as error:
    raise UserError(f'config.model: {first_line(error)}') from error
  if not jax.tree.leaves(shapes.ema['params']):
    raise UserError(
      f'network {config.model.name!r} has no parameters to train; measure it with jaxsr evaluate'
    )
  placed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)  # noqa: E731
  return Experiment(
    init=jax.jit(make, out_shardings=everywhere, compiler_options=_compile_quickly()),
    shapes=jax.tree.map(placed, shapes),
    components=components,
    plan=plan,
    frozen=jax.device_put(frozen, everywhere),
    monitor=CollapseMonitor(**config.adversarial.alarm),
    teachers=loaded,
    mesh=mesh,
  )


def _init(config: Config, components: StepComponents) -> State:
  """Initialize the state."""
  key = jax.random.key(config.seed)
  lr = jnp.zeros((1, config.data.patch, config.data.patch, config.channels))
  generator, distiller = components.generator, components.distiller
  first = state.init(generator.network, generator.tx, key, lr)
  if regressors := distiller.regressors:
    trunk = _trunk(generator.network, distiller.points, lr)
    zeros = tuple(jnp.zeros(x.shape) for x in trunk)
    adapters = state.init_trainable(
      regressors.network, regressors.tx, jax.random.fold_in(key, 2), zeros
    )
    first = dataclasses.replace(first, adapters=adapters)
  if components.discriminator is None:
    return first
  side = config.data.patch * config.scale
  patch = jnp.zeros((1, side, side, config.channels))
  network, key = components.discriminator.network, jax.random.fold_in(key, 1)
  discriminator = state.init_trainable(network.network, network.tx, key, patch)
  stats = state.init_discriminator_stats()
  return dataclasses.replace(first, discriminator=discriminator, watch=stats)


def _compile_quickly() -> dict[str, Any]:
  """Returns options to compile without optimization, for a program that runs once.

  The 1,600 initializers of RCAN took XLA three minutes on a CPU.
  """
  if jax.default_backend() != 'cpu':
    return {}
  return {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


def _generator(config: Config, plan: Plan) -> TrainableNetwork:
  options = dict(config.optimizer)
  stages = [(options.pop('learning_rate'), plan.updates(config.steps)[0])]
  if plan.pretrain:
    stages.insert(0, (config.pretrain.learning_rate, plan.pretrain))
  network = build_network(config)
  return TrainableNetwork(network, *optimizer.make_optimizer(stages, **options))


def _discriminator(config: Config, plan: Plan) -> DiscriminatorTrainer | None:
  if plan.adversarial is None:
    return None
  options = dict(config.discriminator)
  settings = dict(options.pop('optimizer'))
  stages = [(settings.pop('learning_rate'), plan.updates(config.steps)[1])]
  network = Discriminator(**options, dtype=PRECISIONS[config.precision])
  return DiscriminatorTrainer(
    network=TrainableNetwork(network, *optimizer.make_optimizer(stages, **settings)),
    form=config.adversarial.form,
    r1=config.adversarial.r1,
    noise=config.adversarial.noise,
    noise_steps=config.adversarial.noise_steps,
    begin=plan.adversarial,
  )


def _distiller(
  config: Config, plan: Plan, generator: TrainableNetwork, loaded: tuple[Model, ...]
) -> Distiller:
  """Build the teachers, the regressors and the smaller sizes that the terms need."""
  network: Any = generator.network
  points = config.teacher.points
  sizes = ()
  if 'smaller' in plan.needs:
    sizes = slimmable.make_sizes(
      network, config.model, widths=config.slimmable.widths, depths=config.slimmable.depths
    )
  distiller = Distiller(tuple(Teacher(one.network, points) for one in loaded), points, sizes=sizes)
  if not plan.needs & {'features', 'regressed'}:
    return distiller
  lr = jnp.zeros((1, config.data.patch, config.data.patch, config.channels))
  own = _trunk(network, points, lr)
  trunks = [_trunk(one.network, points, lr) for one in loaded]
  for one, trunk in zip(loaded, trunks, strict=True):
    if [x.shape[:3] for x in trunk] != [x.shape[:3] for x in own]:
      raise UserError(
        f'config.teacher.checkpoint: the features of {one.name} and {config.model.name} differ in '
        'resolution; use the terms distill_output or distill_output_mse, or choose another teacher'
      )
  if 'regressed' not in plan.needs:
    return distiller
  widths = tuple(tuple(x.shape[3] for x in trunk) for trunk in trunks)
  return distiller._replace(regressors=generator._replace(network=Regressors(widths)))


def _trunk(network: Any, points: int, lr: jax.Array) -> tuple[Any, ...]:
  """Returns the shapes of the features that a network is compared by."""

  def run(lr: jax.Array) -> Any:
    variables = network.init(jax.random.key(0), lr, train=False)
    variables = {name: x for name, x in variables.items() if name != 'features'}
    found = network.apply(variables, lr, train=False, mutable=['features'])[1]
    return found.get('features', {}).get('trunk', ())

  return distillation.spread(jax.eval_shape(run, lr), points)


def _load_extractors(
  config: Config, plan: Plan
) -> tuple[dict[str, FeatureExtractor], dict[str, Any]]:
  """Load the feature networks that the terms need, and their variables."""
  extractors, variables = {}, {}
  for name in CONTENT:
    if name in plan.needs:
      extractors[name], variables[name] = load_extractor(
        name, config.content[name], config.precision
      )
  return extractors, variables


def load_extractor(
  name: str, options: Any, precision: str, *, flag: str = ''
) -> tuple[FeatureExtractor, Any]:
  """Load a feature network and print which one it is.

  Args:
    name: A key of `perceptual.LAYERS`.
    options: A section of `config.content`.
    precision: A key of `models.PRECISIONS`.
    flag: The option by which the user can give a file of weights, for messages.

  Returns:
    The network and its variables.

  Raises:
    UserError: The weights cannot be loaded.
  """
  if options.weights == weights.RANDOM:
    found = weights.random(name, options.layer)
  else:
    flag = flag or f'config.content.{name}.weights'
    path = Path(options.weights) if options.weights else download.get(name, flag=flag)
    found = weights.load(name, options.layer, path, variant=options.variant)
  if jax.process_index() == 0:
    print(f'{found.described}; up to {options.layer}', flush=True)
  module = perceptual.build(
    name,
    options.layer,
    activated=options.activated,
    variant=found.variant,
    dtype=PRECISIONS[precision],
  )
  extractor = FeatureExtractor(
    module, found.variant, distance=options.distance, scale=options.scale
  )
  return extractor, found.variables
