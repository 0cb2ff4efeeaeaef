"""The files that a plain batch crosses, from an image to the update; ARCHITECTURE lists them."""

import sys
import threading
from pathlib import Path

import jax

import jaxsr
from jaxsr import sharding
from jaxsr.data import pipeline, sources
from jaxsr.training.loop import CompiledSteps
from jaxsr.training.setup import assemble

PATH = (
  'data/image_cache.py',  # an image, downscaled once
  'data/crops.py',  # where the crop lies
  'data/pipeline.py',  # the crop, and the batch
  'sharding.py',  # onto the devices
  'training/loop.py',  # the program of the phase
  'data/batch.py',  # floats
  'training/step.py',  # forward, gradients, update, average
  'training/optimizer.py',  # applies the network, updates the parameters
  'models/edsr.py',
  'losses/__init__.py',  # the table of terms
  'losses/pixel.py',
  'losses/schedule.py',  # the weight of the term
)
# Types that batches and states are made of, the length of the source, and the kernels below
# `models.layers.Conv`.
BESIDE = ('training/state.py', 'data/sources.py', 'models/layers.py')


def test_a_batch_crosses_twelve_files(tiny):
  tiny.loss.update(mse=0.0, l1=1.0)
  mesh = sharding.make_mesh(1)
  experiment = assemble(tiny, mesh)
  loader = pipeline.make_loader(tiny, sources.training(tiny), mesh)
  steps, state = CompiledSteps(experiment, loader), experiment.init()
  warm = loader.batches(0)
  next(warm)  # reads the images
  warm.close()
  root, found = Path(jaxsr.__file__).parent, set()

  def listen(frame, event, _):
    path = Path(frame.f_code.co_filename)
    if event == 'call' and path.is_relative_to(root):
      found.add(str(path.relative_to(root)))

  threading.setprofile(listen)  # grain's threads
  sys.setprofile(listen)
  try:
    batches = loader.batches(1)
    state, scalars = steps(0, state, next(batches))
  finally:
    sys.setprofile(None)
    threading.setprofile(None)
    batches.close()
  assert jax.device_get(scalars['loss']) > 0
  crossed = {path for path in found if not path.startswith('ops/')} - set(BESIDE)
  assert crossed == set(PATH) and len(PATH) <= 12
