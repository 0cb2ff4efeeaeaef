"""Flags that set values of a config."""

import pytest

from jaxsr import config as configs
from jaxsr.config.overrides import override
from jaxsr.errors import UserError


@pytest.mark.parametrize(
  ('flag', 'value'), [('1e3', 1000), ('1_000', 1000), ('2.5e1', 25), ('7', 7)]
)
def test_whole_numbers_may_be_written_as_floats(flag, value):
  config = override(configs.base(), [f'--config.steps={flag}'])
  assert config.steps == value and type(config.steps) is int


def test_other_values_are_set():
  flags = ['--config.loss.l1=1', '--config.data.train=DIR', '--config.slimmable.widths=(0.5,)']
  config = override(configs.base(), [*flags, '--config.discriminator.separable=true'])
  assert (config.loss.l1, config.data.train) == (1.0, 'DIR')
  assert config.slimmable.widths == (0.5,) and config.discriminator.separable is True


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('loss.l2=1', "config.loss has no 'l2': did you mean 'l1'.*charbonnier"),
    ('optimiser.b1=0.1', "config has no 'optimiser': did you mean 'optimizer'"),
    ('steps.few=1', "config.steps has no 'few': it is a value"),
    ('steps=many', 'config.steps=many: must be a number'),
    ('steps=1.5', 'config.steps=1.5: must be a whole number'),
    ('optimizer.b1=high', 'config.optimizer.b1=high: must be a number'),
  ],
)
def test_a_bad_flag_says_what_there_is(flag, message):
  with pytest.raises(UserError, match=message):
    override(configs.base(), [f'--config.{flag}'])
