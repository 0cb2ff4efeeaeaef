import json

import jax
import numpy as np
import pytest

from jaxsr import cli, models
from jaxsr.data import image_files
from jaxsr.inference.predict import make_predict
from runs import variables_of


@pytest.fixture(scope='module')
def network():
  return models.build('edsr', {'features': 8, 'blocks': 1}, scale=2)


def test_it_is_the_mean_over_eight_turns(network):
  variables = variables_of(network)
  lr = np.random.default_rng(0).random((2, 12, 9, 1)).astype(np.float32)
  predict = jax.jit(make_predict(network))
  found = jax.jit(make_predict(network, ensemble=True))(variables, lr)
  turned = []
  for axis in (None, 1):
    for k in range(4):
      seen = np.rot90(lr if axis is None else np.flip(lr, axis), k, (1, 2))
      made = np.rot90(np.asarray(predict(variables, seen)), -k, (1, 2))
      turned.append(made if axis is None else np.flip(made, axis))
  assert len({t.tobytes() for t in turned}) == 8
  np.testing.assert_allclose(found, np.mean(turned, axis=0), atol=1e-6)


def test_it_turns_with_the_image(network):
  variables = variables_of(network)
  lr = np.random.default_rng(1).random((1, 10, 10, 1)).astype(np.float32)
  predict = jax.jit(make_predict(network, ensemble=True))
  for turn in (lambda x: np.rot90(x, 1, (1, 2)), lambda x: np.flip(x, 2)):
    np.testing.assert_allclose(
      predict(variables, turn(lr)), turn(predict(variables, lr)), atol=1e-6
    )


def test_the_commands_take_it(folder, tmp_path):
  def jaxsr(*arguments):
    with pytest.raises(SystemExit) as exit:
      cli.main([str(a) for a in arguments])
    return exit.value.code

  options = ('--checkpoint', 'lanczos', '--output', tmp_path / 'e', '--ensemble')
  assert jaxsr('evaluate', '--data', folder / 'a.png', *options) == 0
  assert json.loads((tmp_path / 'e' / 'summary.json').read_text())['ensemble']
  assert jaxsr('upscale', folder / 'a.png', *options) == 0
  assert 'lanczos, self-ensemble x4' in image_files.read_note(tmp_path / 'e' / 'a.png')
