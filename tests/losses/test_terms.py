"""The gradient of every term reaches the generator, computed by the step's own functions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsr import sharding
from jaxsr.data.batch import normalize
from jaxsr.losses import ADVERSARIAL, TERMS
from jaxsr.losses.adversarial import FORMS
from jaxsr.perceptual import weights
from jaxsr.training import loop, setup, step
from runs import pack

CASES = [(name, {}) for name in TERMS if name != ADVERSARIAL]
CASES += [(ADVERSARIAL, {'adversarial.form': form}) for form in FORMS]
CASES += [(ADVERSARIAL, {'discriminator.norm': norm}) for norm in ('spectral', 'none')]
CASES += [(ADVERSARIAL, {'adversarial.real': 'teacher'})]
CASES += [('vgg19', {'content.vgg19.activated': False, 'content.vgg19.distance': 'l1'})]
CASES += [('vgg16', {'content.vgg16.distance': 'relative'})]
LAYERS = {'vgg16': 'conv1_2', 'vgg19': 'conv1_2', 'mobilenet_v2': 'block_1'}
STEPS = (1e-4, 1e-3, 1e-2, 1e-1, 1)  # too small a one drowns in rounding, too large one bends


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
  """Pack an untrained teacher whose features differ in width from the student's."""
  options = {'name': 'edsr', 'features': 12, 'blocks': 2, 'upsampler': 'direct'}
  return str(pack(tmp_path_factory.mktemp('teacher') / 'packed', options))


def assemble(config, name, options, teacher):
  """Build a run on one term."""
  config.loss = {term: 1.0 * (term == name) for term in TERMS}
  for term, layer in LAYERS.items():
    config.content[term].update(layer=layer, weights=weights.RANDOM)
  config.discriminator.update(features=4, hidden=8)
  config.optimizer.warmup = 0
  config.model.features = 16  # so that there are narrower ones
  config.teacher.checkpoint = teacher
  config.update_from_flattened_dict(options)
  return setup.assemble(config, sharding.make_mesh(1))


def begin(built):
  """Initialize a state whose network does not start at bicubic."""
  state = built.init()
  keys = iter(jax.random.split(jax.random.key(2), 99))
  shake = lambda x: x + 0.05 * jax.random.normal(next(keys), x.shape)
  generator = dataclasses.replace(
    state.generator, params=jax.tree.map(shake, state.generator.params)
  )
  return dataclasses.replace(state, generator=generator)


@pytest.fixture
def raw(rng):
  """Draw a batch as it comes from the pipeline."""
  return {
    'lr': rng.integers(0, 256, (3, 12, 12, 1), np.uint8),
    'hr': rng.integers(0, 256, (3, 48, 48, 1), np.uint8),
    'mask': np.ones((3, 48, 48, 1), np.uint8),
  }


@pytest.mark.parametrize(('name', 'options'), CASES, ids=str)
def test_gradient_at_the_generator_equals_finite_differences(tiny, raw, teacher, name, options):
  """The gradient at the outputs of the generator, against finite differences of the term."""
  built = assemble(tiny, name, options, teacher)
  state, batch = begin(built), normalize(jax.tree.map(jnp.asarray, raw))
  phase, components = built.plan.at(0), built.components
  upcycled = step.make_upcycled(phase, batch, step.split_keys(components, state))
  run = jax.jit(lambda: step.run_generator(components, phase, state, batch, upcycled)[0])
  outputs = run()

  def context(outputs):
    return step.make_context(components, state, batch, built.frozen, outputs, upcycled)

  weighted_grad = jax.jit(lambda x: step.weighted_grad(phase, context(x), state))
  loss = jax.jit(lambda x: step.term_value(name, context(x), x))
  gradient, scalars = weighted_grad(outputs)
  norm = float(optax.tree.norm(gradient))
  assert norm > 1e-6
  assert scalars[f'gradient/{name}'] == pytest.approx(norm, rel=1e-5)
  assert scalars[f'term/{name}'] == pytest.approx(float(loss(outputs)), rel=1e-5)
  # along the gradient itself the slope is its norm: no sample of directions can miss it
  along = lambda h: float(loss(jax.tree.map(lambda x, g: x + h * g / norm, outputs, gradient)))
  found = [(along(h) - along(-h)) / (2 * h) for h in STEPS]
  assert min(abs(slope / norm - 1) for slope in found) < 0.02, (found, norm)


@pytest.mark.slow  # each term is tested by itself as well
def test_all_terms_together_move_the_generator(tiny, raw, teacher):
  options = {f'loss.{name}': 1.0 for name in TERMS}
  built = assemble(tiny, None, options, teacher)
  state = begin(built)
  before = jax.device_get((state.generator.params, state.adapters.params))
  state, scalars = loop.CompiledSteps(built)(0, state, sharding.put(raw, sharding.make_mesh(1)))
  after = jax.device_get((state.generator.params, state.adapters.params))
  assert all(scalars[f'gradient/{name}'] > 0 for name in TERMS)
  assert scalars['loss'] == pytest.approx(sum(float(scalars[f'term/{n}']) for n in TERMS), rel=1e-5)
  for one, other in zip(before, after, strict=True):
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))


QUICK = ('mse', 'vgg19', 'adversarial', 'distill_feature')  # one of each kind


@pytest.mark.parametrize(
  'name', [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TERMS]
)
def test_the_check_notices_a_gradient_that_is_partly_stopped(tiny, raw, teacher, monkeypatch, name):
  """The check above fails if a tenth of a term's gradient does not reach the generator."""
  term = TERMS[name]

  def partly_stopped(context):
    value = term.compute(context)
    return 0.9 * value + 0.1 * jax.lax.stop_gradient(value)

  monkeypatch.setitem(TERMS, name, term._replace(compute=partly_stopped))
  with pytest.raises(AssertionError, match=r'< 0\.02'):
    test_gradient_at_the_generator_equals_finite_differences(tiny, raw, teacher, name, {})
