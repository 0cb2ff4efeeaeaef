"""How many places a new loss term touches: the tables, and nothing else."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import config as configs
from jaxsr import perceptual
from jaxsr.config import compatibility
from jaxsr.errors import UserError
from jaxsr.losses import TERMS, Term, pixel
from jaxsr.training import distillation
from runs import run


@pytest.fixture
def batch(rng):
  lr = rng.integers(0, 256, (2, 12, 12, 1), np.uint8)
  hr = rng.integers(0, 256, (2, 48, 48, 1), np.uint8)
  return {'lr': lr, 'hr': hr, 'mask': np.ones((2, 48, 48, 1), np.uint8)}


def train_one_step(config, batch, name):
  """Train a step on a term alone; returns its scalars."""
  for term in TERMS:
    config.loss[term] = 0.0
  config.loss[name] = 1.0
  state, (scalars,) = run(config, batch)
  assert state.skipped == 0
  return scalars


def weighted(tiny):
  """Returns a config that knows the terms of the tables as they are now, with a tiny network."""
  config = configs.base()
  for name in ('model', 'steps', 'batch_size', 'data', 'devices', 'optimizer'):
    config[name] = tiny[name]
  return config


def test_a_term_of_images_is_a_formula_and_a_line(tiny, batch, monkeypatch):
  """Places: 1. the formula, in a module of `losses`; 2. its line in `TERMS`."""
  log_cosh = lambda sr, hr: jnp.log(jnp.cosh(sr - hr))  # 1
  monkeypatch.setitem(TERMS, 'log_cosh', Term(lambda c: log_cosh(c.sr, c.hr)))  # 2
  scalars = train_one_step(weighted(tiny), batch, 'log_cosh')
  assert scalars['loss'] == scalars['term/log_cosh'] > 0
  assert scalars['gradient/log_cosh'] > 0 and scalars['grad_norm'] > 0


def test_older_runs_resume_after_a_term_was_added_or_removed(monkeypatch):
  without = configs.to_dict(configs.base())
  monkeypatch.setitem(TERMS, 'log_cosh', Term(lambda c: c.sr))
  monkeypatch.setattr(configs, 'CONTENT', (*configs.CONTENT, 'lpips'))
  monkeypatch.setitem(perceptual.LAYERS, 'lpips', ('conv1',))
  config = configs.base()
  config.model = configs.network('srcnn')
  having = configs.to_dict(config)
  without['model'] = having['model']
  assert having['loss']['log_cosh'] == 0.0 and having['content']['lpips']['scale'] == 1.0
  assert compatibility.check_change(without, having, allowed=False) == []
  assert compatibility.check_change(having, without, allowed=False) == []
  having['loss']['log_cosh'] = 0.5
  with pytest.raises(UserError, match=r'config.loss.log_cosh was 0, is now 0.5: choose another'):
    compatibility.check_change(without, having, allowed=False)
  having['loss']['log_cosh'], having['content']['vgg19']['new'] = 0.0, 1
  with pytest.raises(UserError, match=r'config.content.vgg19.new was None, is now 1'):
    compatibility.check_change(without, having, allowed=False)


def test_a_term_of_a_further_output_needs_a_line_more(tiny, batch, monkeypatch):
  """The image of the mirrored input should be the mirrored image.

  Places: 1. the formula; 2. its line in `TERMS`, which names the output that it needs; 3. the
  output's line in `distillation.OUTPUTS`. A property of `LossContext` that gives the output a name
  would be the fourth.
  """

  def mirrored(forward):  # 3
    sr, _ = forward.student.apply(forward.params, forward.batch_stats, forward.lr[:, :, ::-1])
    return (sr[:, :, ::-1],)

  def equivariance(context):  # 1
    return pixel.mse(context.sr, context.outputs.extra['mirrored'][0])

  monkeypatch.setitem(TERMS, 'equivariance', Term(equivariance, ('mirrored',)))  # 2
  monkeypatch.setitem(distillation.OUTPUTS, 'mirrored', mirrored)
  config = weighted(tiny)
  config.model.bicubic_skip = False  # a network that starts at bicubic is equivariant
  scalars = train_one_step(config, batch, 'equivariance')
  assert scalars['term/equivariance'] > 0
  assert scalars['gradient/equivariance'] > 0 and scalars['grad_norm'] > 0


def test_without_its_output_the_term_is_an_error(tiny, batch, monkeypatch):
  monkeypatch.setitem(
    TERMS, 'equivariance', Term(lambda c: pixel.mse(c.sr, c.outputs.extra['mirrored'][0]))
  )
  with pytest.raises(KeyError, match='mirrored'):
    train_one_step(weighted(tiny), batch, 'equivariance')
