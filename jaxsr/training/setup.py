"""From a config to the functions that a run is made of."""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxsr import config as configs
from jaxsr import perceptual, sharding
from jaxsr.compression import slimmable
from jaxsr.config import Config
from jaxsr.data import device_cache
from jaxsr.errors import UserError, first_line
from jaxsr.inference.model import Model
from jaxsr.losses import CONTENT
from jaxsr.losses.schedule import Phase, Plan
from jaxsr.models import PRECISIONS
from jaxsr.models.discriminator import Discriminator
from jaxsr.perceptual import FeatureExtractor, download, weights
from jaxsr.training import distillation, optimizer, state, teachers
from jaxsr.training.distillation import Adapters, Lesson, Teacher
from jaxsr.training.gan import CollapseMonitor, DiscriminatorTrainer
from jaxsr.training.optimizer import TrainableNetwork
from jaxsr.training.state import State
from jaxsr.training.step import Parts, Scalars, Step, make_train_step


class Experiment(NamedTuple):
  """What a run is made of; `frozen` are the variables of feature networks and teachers.

  Films that are on the device join `frozen`, as `films`.
  """

  init: Any  # () -> State, jitted
  shapes: State  # with shardings
  parts: Parts
  plan: Plan
  frozen: dict[str, Any]
  alarm: CollapseMonitor
  teachers: tuple[Model, ...]
  compiled: Callable[[Phase], Any]
  compiling: dict[Phase, Future[Any]]

  @property
  def network(self) -> Any:
    """Give the generator's network."""
    return self.parts.generator.network

  @property
  def perceptual(self) -> tuple[FeatureExtractor, Any] | None:
    """Give the first feature network, with its variables: what validation compares by."""
    return next(
      ((extractor, self.frozen[name]) for name, extractor in self.parts.extractors.items()), None
    )

  def prepare(self, number: int, batch: Any) -> None:
    """Compile step `number` for batches like this one in a thread; its first call waits for it."""
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)  # noqa: E731
    batch, frozen = jax.tree.map(like, (batch, self.frozen))
    phase = self.plan.at(number)
    program = lambda: self.compiled(phase).lower(self.shapes, batch, frozen).compile()  # noqa: E731
    pool = ThreadPoolExecutor(1)
    self.compiling[phase] = pool.submit(program)
    pool.shutdown(wait=False)

  def step(self, number: int, state: State, batch: Any) -> tuple[State, Scalars]:
    """Take step `number`, that of the state; the state is donated."""
    phase = self.plan.at(number)
    if phase in self.compiling:
      self.compiling.pop(phase).result()
    return self.compiled(phase)(state, batch, self.frozen)


def assemble(config: Config, mesh: Mesh) -> Experiment:
  """Build the network and its jitted, sharded, donated steps; nothing is compiled yet.

  Raises UserError where the network's options do not make a network, or where the weights of a
  feature network or a teacher are not to be had.
  """
  plan = configs.make_plan(config)
  extractors, frozen = _load_extractors(config, mesh)
  generator = _generator(config, plan)
  needed = distillation.needs_teacher(plan.terms) or config.adversarial.real == 'teacher'
  found = teachers.load(config) if needed else ()
  lesson = _lesson(config, plan, generator, found)
  everywhere = sharding.replicated(mesh)
  frozen['teachers'] = [jax.device_put(one.variables, everywhere) for one in found]
  parts = Parts(
    generator=generator,
    adversary=_adversary(config, plan),
    extractors=extractors,
    lesson=lesson,
    margin=config.data.margin * config.scale,
    ema_decay=config.ema,
    seed=config.seed,
  )
  make = lambda: _init(config, parts)  # noqa: E731
  try:
    shapes = jax.eval_shape(make)
  except (ValueError, TypeError, ZeroDivisionError) as error:
    raise UserError(f'config.model: {first_line(error)}') from error
  if not jax.tree.leaves(shapes.ema['params']):
    raise UserError(f'network {config.model.name!r} has nothing to train; evaluate it instead')
  placed = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)  # noqa: E731
  programs: dict[Phase, Any] = {}

  def compiled(phase: Phase) -> Any:
    if phase not in programs:
      programs[phase] = jax.jit(
        _of_resident(config, make_train_step(parts, phase)),
        in_shardings=(everywhere, sharding.split(mesh), everywhere),
        out_shardings=everywhere,
        donate_argnums=0,
      )
    return programs[phase]

  return Experiment(
    init=jax.jit(make, out_shardings=everywhere, compiler_options=_quickly()),
    shapes=jax.tree.map(placed, shapes),
    parts=parts,
    plan=plan,
    frozen=frozen,
    alarm=CollapseMonitor(**config.adversarial.alarm),
    teachers=found,
    compiled=compiled,
    compiling={},
  )


def _of_resident(config: Config, step: Step) -> Step:
  """Let a step cut its batch out of films on the device, if that is where they are."""
  if config.data.cache != 'device':
    return step
  cut = functools.partial(device_cache.cut, patch=config.data.patch, margin=config.data.margin)
  return lambda state, where, frozen: step(state, cut(frozen['films'], where), frozen)


def _init(config: Config, parts: Parts) -> State:
  """Make the first state."""
  key = jax.random.key(config.seed)
  lr = jnp.zeros((1, config.data.patch, config.data.patch, config.channels))
  first = state.init(parts.generator.network, parts.generator.tx, key, lr)
  if adapters := parts.lesson.adapters:
    trunk = _trunk(parts.generator.network, parts.lesson.points, lr)
    zeros = tuple(jnp.zeros(x.shape) for x in trunk)
    begun = state.init_trainable(adapters.network, adapters.tx, jax.random.fold_in(key, 2), zeros)
    first = dataclasses.replace(first, adapters=begun)
  if parts.adversary is None:
    return first
  side = config.data.patch * config.scale
  patch = jnp.zeros((1, side, side, config.channels))
  learner, key = parts.adversary.learner, jax.random.fold_in(key, 1)
  discriminator = state.init_trainable(learner.network, learner.tx, key, patch)
  return dataclasses.replace(
    first, discriminator=discriminator, watch=state.init_discriminator_stats()
  )


def _quickly() -> dict[str, Any]:
  """Ask XLA not to optimise what runs once: RCAN's 1,600 initialisers took it three minutes."""
  if jax.default_backend() != 'cpu':
    return {}
  return {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}


def _generator(config: Config, plan: Plan) -> TrainableNetwork:
  options = dict(config.optimizer)
  stages = [(options.pop('learning_rate'), plan.updates(config.steps)[0])]
  if plan.pretrain:
    stages.insert(0, (config.pretrain.learning_rate, plan.pretrain))
  return TrainableNetwork(
    configs.build_network(config), *optimizer.make_optimizer(stages, **options)
  )


def _adversary(config: Config, plan: Plan) -> DiscriminatorTrainer | None:
  if plan.adversarial is None:
    return None
  options = dict(config.discriminator)
  settings = dict(options.pop('optimizer'))
  stages = [(settings.pop('learning_rate'), plan.updates(config.steps)[1])]
  network = Discriminator(**options, dtype=PRECISIONS[config.precision])
  return DiscriminatorTrainer(
    learner=TrainableNetwork(network, *optimizer.make_optimizer(stages, **settings)),
    form=config.adversarial.form,
    of_teacher=config.adversarial.real == 'teacher',
    r1=config.adversarial.r1,
    noise=config.adversarial.noise,
    noise_steps=config.adversarial.noise_steps,
    begin=plan.adversarial,
  )


def _lesson(
  config: Config, plan: Plan, generator: TrainableNetwork, found: tuple[Model, ...]
) -> Lesson:
  """Build what teachers are compared through, and the smaller selves of a slimmable network."""
  terms = plan.terms
  network, points = generator.network, config.teacher.points
  sizes = ()
  if 'slimmable' in terms:
    sizes = slimmable.make_sizes(
      network, config.model, widths=config.slimmable.widths, depths=config.slimmable.depths
    )
  lesson = Lesson(tuple(Teacher(one.network, points) for one in found), points, sizes=sizes)
  if distillation.needs_features(terms):
    lr = jnp.zeros((1, config.data.patch, config.data.patch, config.channels))
    own = _trunk(network, points, lr)
    widths = []
    for one in found:
      trunk = _trunk(one.network, points, lr)
      if [x.shape[:3] for x in trunk] != [x.shape[:3] for x in own]:
        raise UserError(
          f'config.teacher.checkpoint: the features of {one.name} and {config.model.name} are not '
          'of the same pixels; distill images, or choose a teacher that works at its resolution'
        )
      widths.append(tuple(x.shape[3] for x in trunk))
    if 'distill_feature' in terms:
      lesson = lesson._replace(adapters=generator._replace(network=Adapters(tuple(widths))))
  return lesson


def _trunk(network: Any, points: int, lr: jax.Array) -> tuple[Any, ...]:
  """Give the shapes of a network's features."""

  def run(lr: jax.Array) -> Any:
    variables = network.init(jax.random.key(0), lr, train=False)
    variables = {name: x for name, x in variables.items() if name != 'features'}
    found = network.apply(variables, lr, train=False, mutable=['features'])[1]
    return found.get('features', {}).get('trunk', ())

  return distillation.spread(jax.eval_shape(run, lr), points)


def _load_extractors(
  config: Config, mesh: Mesh
) -> tuple[dict[str, FeatureExtractor], dict[str, Any]]:
  """Load the feature networks that terms ask for."""
  extractors, frozen = {}, {}
  for name in CONTENT:
    if config.loss[name] or (config.pretrain.steps and config.pretrain.loss[name]):
      extractor, variables = load_extractor(name, config.content[name], config.precision)
      extractors[name], frozen[name] = (
        extractor,
        jax.device_put(variables, sharding.replicated(mesh)),
      )
  return extractors, frozen


def load_extractor(name: str, options: Any, precision: str) -> tuple[FeatureExtractor, Any]:
  """Load a feature network as a section of `config.content` describes it, and say what it is."""
  if options.weights == weights.RANDOM:
    found = weights.random(name, options.layer)
  else:
    path = Path(options.weights) if options.weights else download.get(name)
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
