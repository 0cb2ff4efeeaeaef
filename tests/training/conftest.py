"""A finished run that the tests of training share."""

import pytest

from jaxsr import config as configs
from jaxsr.training.train import train
from runs import four_steps


@pytest.fixture(scope='session')
def finished(tmp_path_factory):
  """Train four steps without interruption; returns the config and the folder, not to be changed."""
  config = four_steps(configs.base())
  config.model = configs.network(
    'edsr', features=8, blocks=1, upsampler='direct', bicubic_skip=True
  )
  config.loss.mse = 1.0
  config.devices = 1
  folder = tmp_path_factory.mktemp('finished')
  assert train(config, folder) == 0
  return config, folder
