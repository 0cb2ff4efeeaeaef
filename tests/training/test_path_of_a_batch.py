"""The files that a plain batch crosses, from an image in memory to the update.

ARCHITECTURE lists them. Images are read once per run, through further files.
"""

import re
import sys
import threading
from pathlib import Path

import jax

import jaxsr
from jaxsr import sharding
from jaxsr.data import pipeline, sources
from jaxsr.training.loop import CompiledSteps
from jaxsr.training.setup import assemble
from jaxsr.training.waiting import WaitQueue

PATH = (  # in the order of the first calls
  'data/pipeline.py',  # the crops of a batch
  'data/image_cache.py',  # the image of a crop, downscaled once
  'data/crops.py',  # where the crop lies
  'sharding.py',  # onto the devices
  'training/loop.py',  # the program of the phase
  'losses/schedule.py',  # the phase, and the weights of its terms
  'training/step.py',  # forward, gradients, update, average
  'data/batch.py',  # floats
  'training/optimizer.py',  # applies the network, updates the parameters
  'models/edsr.py',
  'losses/__init__.py',  # the table of terms
  'losses/pixel.py',
)
# Types that batches and states are made of, the length of the source, the queue that passes batches
# on as they are, and the kernels below `models.layers.Conv`.
BESIDE = ('training/state.py', 'data/sources.py', 'training/waiting.py', 'models/layers.py')


def test_a_batch_crosses_twelve_files(tiny):
  tiny.loss.update(mse=0.0, l1=1.0)
  mesh = sharding.make_mesh(1)
  experiment = assemble(tiny, mesh)
  loader = pipeline.make_loader(tiny, sources.training(tiny), mesh)
  steps, state = CompiledSteps(experiment, loader), experiment.init()
  warm = loader.batches(0)
  next(warm)  # reads the images
  warm.close()
  root, found = Path(jaxsr.__file__).parent, {}

  def listen(frame, event, _):
    path = Path(frame.f_code.co_filename)
    if event == 'call' and path.is_relative_to(root):
      found[str(path.relative_to(root))] = None

  threading.setprofile(listen)  # grain's threads
  sys.setprofile(listen)
  try:
    batches = WaitQueue(loader.batches(1), timeout=0, reading=lambda: '')
    state, scalars = steps(0, state, batches.next(lambda: False))
  finally:
    sys.setprofile(None)
    threading.setprofile(None)
    batches.close()
  assert jax.device_get(scalars['loss']) > 0
  crossed = {path for path in found if not path.startswith('ops/')} - set(BESIDE)
  assert crossed == set(PATH) and len(PATH) <= 12
  assert tuple(path for path in found if path in PATH) == PATH


def test_the_list_in_architecture_is_this_path():
  text = (Path(jaxsr.__file__).parents[1] / 'ARCHITECTURE.md').read_text(encoding='utf-8')
  assert tuple(re.findall(r'^\d+\. `([\w/]+\.py)`', text, re.MULTILINE)) == PATH
