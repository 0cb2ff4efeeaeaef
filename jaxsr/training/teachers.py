"""Teachers: trained networks, and their images of full inputs computed in advance."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from jaxsr import files, sharding
from jaxsr.config import Config
from jaxsr.data import teacher_cache
from jaxsr.data.sources import Source
from jaxsr.data.teacher_cache import Labels
from jaxsr.errors import UserError
from jaxsr.files import make_folder
from jaxsr.inference import model, package
from jaxsr.inference.model import Model
from jaxsr.inference.predict import make_predict
from jaxsr.models import PRECISIONS


def load(config: Config) -> tuple[Model, ...]:
  """Load the teachers of a config and print which they are.

  Raises:
    UserError: A teacher cannot be loaded, or its scale or channels differ from the config.
  """
  options = config.teacher
  exact = options.precision == 'float32' or (
    options.precision == 'auto' and jax.default_backend() == 'cpu'
  )
  found = []
  for name in filter(None, (part.strip() for part in options.checkpoint.split(','))):
    try:
      one = model.load(name, step=options.step)
    except UserError as error:
      raise UserError(f'config.teacher.checkpoint: {error}') from error
    text = f'config.teacher.checkpoint={name}'
    for key in ('scale', 'channels'):
      if getattr(one, key) != config[key]:
        raise UserError(f'{text}: its {key} is {getattr(one, key)}, not {config[key]}')
    if one.step is None:
      raise UserError(f'{text}: is an interpolation without parameters; choose a trained network')
    dtype = PRECISIONS['float32' if exact else 'bfloat16']
    found.append(dataclasses.replace(one, network=one.network.clone(dtype=dtype)))
    if jax.process_index() == 0:
      print(
        f'teacher: {name}, {one.architecture}, step {one.step}, {one.parameters:,} parameters',
        flush=True,
      )
  return tuple(found)


def prepare_labels(config: Config, found: tuple[Model, ...], source: Source) -> Labels | None:
  """Compute the teachers' images of all training images that are not in `config.teacher.cache` yet.

  Returns:
    The images, or None if `config.teacher.cache` is not set.
  """
  if not (config.teacher.cache and found):
    return None
  tensors = [package.to_tensors(one.variables) for one in found]
  name = files.digest_arrays(tensors, [(one.network, config.scale) for one in found])
  kept = Labels(Path(config.teacher.cache) / name, source.names)
  if jax.process_index() == 0:
    predictions = [jax.jit(make_predict(one.network)) for one in found]

    def enlarge(lr: np.ndarray) -> np.ndarray:
      pairs = zip(predictions, found, strict=True)
      images = [predict(one.variables, lr[None])[0] for predict, one in pairs]
      return np.asarray(sum(images[1:], start=images[0]) / len(images))

    make_folder(kept.folder)
    print(f'teacher: upscaling {len(source)} images once, for {kept.folder}', flush=True)
    made = teacher_cache.make(kept, source, enlarge, scale=config.scale)
    count = sum(1 for _ in made)
    print(f'teacher: upscaled {count} images, {len(source) - count} were there', flush=True)
  sharding.wait_for_all('labels')
  return kept
