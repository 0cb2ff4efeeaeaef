"""The noise and compression of the images that a network was trained on, and a check against them.

A package keeps this range in its config. `jaxsr upscale` remarks on images outside of it, on which
a network can be worse than bicubic.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import UInt

from jaxsr.data import quality
from jaxsr.data.quality import Quality
from jaxsr.errors import ImageError, UserError
from jaxsr.inference import arguments, package

if TYPE_CHECKING:
  from jaxsr.inference.model import Model

SECTION = 'inputs'  # of a package's config
_MOST = 300  # training images that are looked at
_SHARE = 99.5  # percent of the training images that lie inside
_SLACK = 1.2  # since other images differ a little more
_LEAST = (0.5, 0.25)  # limits, since the estimates scatter on small images


class InputRange(NamedTuple):
  """The largest noise and blockiness of inputs, in the units of `data.quality.Quality`."""

  noise: float
  blockiness: float


def of_config(config: Mapping[str, Any]) -> InputRange | None:
  """Returns the range in a package's config; None for packages without one, and for runs."""
  found = config.get(SECTION)
  return None if found is None else InputRange(found['noise'], found['blockiness'])


def of_training(config: Any) -> InputRange:
  """Measure the range of a run's low-resolution training images.

  At most 300 images, evenly spaced, are read and reduced as in training. The limits are their
  99.5 % quantiles, and a fifth more; at least a noise of 0.5 and a blockiness of 0.25.

  Args:
    config: the config of the run.

  Raises:
    UserError: the training images cannot be read any more.
  """
  # here, since only packaging a run needs them and they take long to import
  from jaxsr.data import degradation, sources
  from jaxsr.data.acquisition import Acquisition, crops, film

  source = sources.training(config)
  options = dict(config.data.degradation)
  mixture = crops.Mixture(**options) if options.pop('kind') == 'acquisition' else None
  rng = np.random.default_rng(config.seed)
  found = []
  for index in range(0, len(source), -(-len(source) // _MOST)):
    how = crops.draw(rng, mixture) if mixture else Acquisition()
    try:
      lr = sources.low_resolution(source, index)
      if lr is None:
        lr = film.acquire(
          degradation.cut(source[index], config.scale), how, rng, scale=config.scale
        )
    except ImageError:
      continue  # the run reported it
    found.append(quality.measure(lr, int(np.iinfo(lr.dtype).max)))
  if not found:
    raise UserError(f'config.data.train={config.data.train}: no image can be read')
  noise, blockiness = np.maximum(_SLACK * np.percentile(found, _SHARE, axis=0), _LEAST)
  return InputRange(round(float(noise), 3), round(float(blockiness), 3))


def check_input(model: 'Model', image: np.ndarray, *, bits: int = 0) -> str:
  """Check an image against the noise and compression of the model's training images.

  Args:
    model: the model; without a known range, every image passes.
    image: a low-resolution image, uint8 or uint16 [h, w] or [h, w, c], with c = `channels`.
    bits: the number of bits that the values have; 0 is all of the dtype.

  Returns:
    '' if the image lies inside, else a line that says how it differs, and which package to take.

  Raises:
    UserError: the image is a batch, or has another dtype, rank, number of channels or more bits.

  Example:
    >>> import jaxsr
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).normal(128, 8, (64, 64)).astype(np.uint8)
    >>> jaxsr.check_input(jaxsr.load('edsr_x4'), noise)[:52]
    'noisier than the images that edsr_x4 was trained on:'
  """
  if np.ndim(image) == 4:
    raise UserError('image is a batch: check_input takes one image, [h, w] or [h, w, c]')
  image, white = arguments.prepare(image, model, bits, tile=1)
  planes = image if image.ndim == 3 else image[..., None]
  if not (kinds := exceeded(model.inputs, planes, white)):
    return ''
  better = _better(model, quality.measure(planes, white))
  none = 'no installed model was trained for such images: train one with --config=edsr_robust'
  advice = f'take {better}' if better else none
  return (
    f'{" and ".join(kinds)} than the images that {model.name} was trained on: the result can be '
    f'worse than bicubic; {advice}'
  )


def exceeded(
  known: InputRange | None, image: UInt[np.ndarray, 'h w c'], white: int
) -> tuple[str, ...]:
  """Returns how an image exceeds a range: 'noisier', 'more compressed', both or nothing."""
  if known is None:
    return ()
  found = zip(('noisier', 'more compressed'), quality.measure(image, white), known, strict=True)
  return tuple(kind for kind, value, limit in found if value > limit)


def _better(model: 'Model', found: Quality) -> str:
  """Returns the installed package whose range holds an image; '' if none does.

  If several do, it is the one whose weights take the space nearest to the model's (by ratio, as
  float32), since a small model was chosen for its speed.
  """
  fitting = []
  for name in package.names():
    folder = package.find(name)
    if folder is None:
      continue
    config = package.read_config(folder).config
    known = of_config(config)
    fits = (config.get('scale'), config.get('channels')) == (model.scale, model.channels)
    if fits and known and all(value <= limit for value, limit in zip(found, known, strict=True)):
      ratio = (folder / package.WEIGHTS).stat().st_size / (4 * model.parameters)
      fitting.append((abs(math.log(ratio)), name))
  return min(fitting, default=(0.0, ''))[1]
