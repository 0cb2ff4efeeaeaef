"""Fixtures that tests share. Four virtual CPU devices stand in for accelerators."""

import os
import signal
import sys

# One thread per process for products of small matrices: pytest runs one process per core.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')

# Most of a test's time is compilation, so optimization is off; see also `compiled`.
if os.environ.setdefault('JAX_PLATFORMS', 'cpu') == 'cpu':
  os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_force_host_platform_device_count=4'
    + ' --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
  )

import shapes  # noqa: F401, before jaxsr is imported

# isort: split
import phantoms  # noqa: F401, before other modules import the function

# isort: split
from pathlib import Path

import numpy as np
import pytest
from absl import flags

flags.FLAGS.mark_as_parsed()
ROOT = Path(__file__).resolve().parents[1]

# A run in the background ignores these signals, and so would the programs that tests interrupt. A
# handler is not inherited.
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
  if signal.getsignal(number) == signal.SIG_IGN:
    signal.signal(number, lambda *_: None)

# Fixtures import JAX and what trains, since the process that starts the others needs neither.


@pytest.fixture(scope='session', autouse=True)
def compiled(tmp_path_factory):
  """Share compiled programs between tests, processes and, if so configured, runs."""
  import jax

  import compiled as programs
  from jaxsr.commands import compiled_programs

  folder = tmp_path_factory.mktemp('compiled')
  if (kept := programs.kept()) is not None:
    programs.restore(kept, folder)
  for name, value in compiled_programs.settings(folder).items():
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
  yield
  if kept is not None:
    programs.keep(folder, kept)


@pytest.fixture
def uncached():
  """Compile anew, for tests of what the compiler does."""
  import jax
  from jax.experimental.compilation_cache import compilation_cache

  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()
  yield
  jax.config.update('jax_enable_compilation_cache', True)
  compilation_cache.reset_cache()


@pytest.fixture(scope='session', autouse=True)
def guarded():
  """Raise if a training step transfers host memory to a device implicitly, which would stall it."""
  import jax

  from jaxsr.training.loop import CompiledSteps

  call = CompiledSteps.__call__

  def guarded_call(*args, **kwargs):
    with jax.transfer_guard('disallow'):
      return call(*args, **kwargs)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(CompiledSteps, '__call__', guarded_call)
    yield


@pytest.fixture(scope='session')
def shared():
  """The folder of real films and published figures; skips the test if it is absent."""
  folder = Path(os.environ.get('JAXSR_SHARED', ROOT.parent / 'shared'))
  if not (folder / 'nih').is_dir():
    pytest.skip(f'{folder} is absent (real films and published figures; set JAXSR_SHARED)')
  return folder


@pytest.fixture(autouse=True)
def fresh_remarks():
  """Let each test have its files named, since a process names few of a kind."""
  if remarks := sys.modules.get('jaxsr.data.remarks'):
    remarks._paths.clear()


@pytest.fixture(scope='session')
def film():
  """A phantom, uint8 [128, 128, 1]."""
  from jaxsr.data.phantom import phantom

  return phantom(3, 0, size=128)[..., None]


@pytest.fixture
def folder(tmp_path):
  """A folder of four small films, one of them in a subfolder."""
  from jaxsr.data import image_files
  from jaxsr.data.phantom import phantom

  root = tmp_path / 'films'
  (root / 'deeper').mkdir(parents=True)
  for i, name in enumerate(('a.png', 'b.png', 'deeper/c.png', 'd.tif')):
    image_files.write(root / name, phantom(5, i, size=128)[..., None])
  return root


@pytest.fixture
def tiny():
  """A config that trains a tiny network on phantoms in seconds, on one device."""
  from jaxsr import config as configs
  from runs import four_steps

  config = four_steps(configs.base())
  config.model = configs.network(
    'edsr', features=8, blocks=1, upsampler='direct', bicubic_skip=True
  )
  config.loss.mse = 1.0
  config.devices = 1
  return config


@pytest.fixture
def rng():
  """A random generator with a fixed seed."""
  return np.random.default_rng(0)
