"""Calibrations of models, and the intervals and doubt of their images.

A calibration is the file `calibration.json`, in the folder of a package or run or elsewhere. It is
valid for the network that it was made with, with the same weights, and for the same agreement
setting.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt

from jaxsr import models
from jaxsr.errors import UserError, argument
from jaxsr.files import sha256
from jaxsr.inference import package
from jaxsr.inference.uncertainty import calibration as calibrating
from jaxsr.inference.uncertainty import doubt, maps
from jaxsr.inference.uncertainty.calibration import Doubt, Interval
from jaxsr.inference.uncertainty.scale import apply, scale_map

if TYPE_CHECKING:
  from jaxsr.inference.model import Model

VERSION = 1
_ROWS_OF = 2**21  # pixels of an upscaled image whose maps are held in memory


class Calibration(NamedTuple):
  """A calibration that was read from a file.

  Attributes:
    interval, doubt: how half widths and doubtful tiles are computed.
    network: the name, scale and weights of the network that it is for.
    agree: the agreement setting that it is for.
    second: the name and weights of the network that the doubt compares with; None for bicubic.
    digest: the start of the file's SHA-256.
  """

  interval: Interval
  doubt: Doubt
  network: dict[str, Any]
  agree: str
  second: dict[str, Any] | None
  digest: str

  @property
  def patients(self) -> int:
    """The number of patients whose films it was made with."""
    return self.interval.fitted_on + self.interval.chosen_on


class Confidence(NamedTuple):
  """An upscaled image, and how sure it is.

  Attributes:
    image: the upscaled image, as `Model.upscale` returns it.
    half_width: half the width of each pixel's interval, in gray levels of the image.
    doubt: whether a pixel lies in a doubtful tile.
  """

  image: UInt[np.ndarray, 'sh sw *c']
  half_width: Float[np.ndarray, 'sh sw']
  doubt: Bool[np.ndarray, 'sh sw']


def fingerprint(model: 'Model') -> str:
  """Returns the SHA-256 of a model's weights and of the options of its network."""
  described = json.dumps(models.describe(model.network), sort_keys=True, default=str)
  found = hashlib.sha256(f'{described} x{model.scale}'.encode())
  for name, tensor in sorted(package.to_tensors(model.variables).items()):
    found.update(name.encode())
    found.update(tensor.tobytes())
  return found.hexdigest()


def identify(model: 'Model') -> dict[str, Any]:
  """Returns a model's name, scale and fingerprint, as calibrations hold them."""
  return {'name': model.name, 'scale': model.scale, 'weights': fingerprint(model)}


def file_of(path: Path) -> Path:
  """Returns the file of a calibration, given the file or its folder."""
  return path / package.CALIBRATION if path.is_dir() else path


def read(path: Path) -> Calibration:
  """Read a calibration; raises UserError if the file is missing or is not a calibration."""
  path = file_of(path)
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    if found['version'] != VERSION:
      raise ValueError(f'version {found["version"]}')
    interval, doubts = calibrating.from_json(found)
    network, second = dict(found['network']), found['second']
    agree = str(found['agree'])
    return Calibration(interval, doubts, network, agree, second, sha256(path)[:16])
  except (ValueError, KeyError, TypeError, OSError) as error:
    raise UserError(
      f'{path}: is not a calibration ({type(error).__name__}: {error}); make one with '
      '`jaxsr calibrate`'
    ) from error


def check(calibration: Calibration, model: 'Model') -> None:
  """Raise UserError unless a calibration is for this network with these weights."""
  of = calibration.network
  if of.get('weights') == fingerprint(model):
    return
  name = of.get('name')
  what = f'other weights of {name}' if name == model.name else f'{name}, not for {model.name}'
  raise UserError(f'the calibration is for {what}; {_how(model)}')


def agreement_of(model: 'Model', agree: bool | None) -> str:
  """Returns the setting for the option of `upscale`: 'bicubic', ..., or 'none'."""
  rule = model.agreement_rule(agree)
  return 'none' if rule is None else rule.name


def check_agreement(calibration: Calibration, agree: str) -> None:
  """Raise UserError unless a calibration is for images of this agreement setting."""
  if calibration.agree == agree:
    return
  names = {'none': '--no-agree (agree=False)', 'bicubic': '--agree (agree=True)'}
  of, wanted = (names.get(x, f'agreement {x!r}') for x in (calibration.agree, agree))
  raise UserError(
    f'the calibration is for {of}, but the images would be made with {wanted}: use the same for '
    'both, or calibrate again'
  )


def load(model: 'Model', path: Path | None, agree: bool | None) -> Calibration:
  """Read and check the calibration of a model.

  Args:
    model: the model.
    path: a calibration or its folder; None takes that in the folder of the model.
    agree: the option of `upscale` that the images are made with.

  Raises:
    UserError: there is none, or it is for another network, other weights or another setting.
  """
  if path is None:
    path = model.folder and model.folder / package.CALIBRATION
    if path is None or not path.is_file():
      raise UserError(f'{model.name} has no calibration; {_how(model)}')
  found = read(path)
  check(found, model)
  check_agreement(found, agreement_of(model, agree))
  return found


def _how(model: 'Model') -> str:
  by_name = model.folder is None or package.find(model.name) == model.folder
  checkpoint = argument(model.name if by_name else model.folder)
  return (
    f'make one: jaxsr calibrate --checkpoint {checkpoint} --data FOLDER '
    '--output CALIBRATION, and pass --calibration CALIBRATION'
  )


def check_second(calibration: Calibration, second: 'Model') -> None:
  """Raise UserError if the network that the doubt compares with has other weights now."""
  if calibration.second and fingerprint(second) != calibration.second['weights']:
    raise UserError(
      f'the calibration compares with other weights of {second.name}; calibrate again with '
      f'--second {second.name}'
    )


def compute(
  image: np.ndarray,
  sr: np.ndarray,
  calibration: Calibration,
  *,
  scale: int,
  white: int,
  second: np.ndarray | None = None,
) -> Confidence:
  """Compute the intervals and the doubt of an upscaled image.

  Args:
    image: the low resolution, [h, w] or [h, w, c].
    sr: the upscaled image of the same rank and dtype.
    calibration: the calibration of its network.
    scale: the upscaling factor.
    white: the largest gray level of both, 255 for 8 bits.
    second: the image of the network that the doubt compares with, if the calibration has one.
  """
  lr, large = maps.levels(image, white), maps.levels(sr, white)
  half = scale_map(calibration.interval.numbers, lr, large, scale)
  half *= calibration.interval.factor * white / 255
  other = None if second is None else maps.levels(second, white)
  tiles = doubt.scores(lr, large, scale, other) >= calibration.doubt.threshold
  return Confidence(sr, half, doubt.spread(tiles, large.shape))


def compute_rows(
  strips: Iterator[np.ndarray],
  image: UInt[np.ndarray, 'h w c'],
  calibration: Calibration,
  *,
  scale: int,
  white: int,
) -> Iterator[Confidence]:
  """Compute what `compute` does for an upscaled image that comes in strips, some rows at a time.

  Args:
    strips: rows [rows, sw, c] of the upscaled image, from the top; if the calibration has a second
      network, [rows, sw, 2 c] with the channels of its image behind the others.
    image, calibration, scale, white: as for `compute`.

  Yields:
    Rows of the result, from the top.
  """
  (height, width, channels), lr = image.shape, maps.levels(image, white)
  noise = maps.film_noise(lr)
  unit = doubt.TILE // math.gcd(doubt.TILE, scale)  # rows of `image` after which whole tiles end
  margin = -(-maps.MARGIN // unit) * unit
  step = max(1, _ROWS_OF // (unit * scale**2 * width)) * unit
  held, top, done = np.empty((0, scale * width, 0), image.dtype), 0, 0
  for strip in strips:
    held = np.concatenate([held, strip]) if len(held) else strip
    bottom = top + len(held) // scale
    ready = height if bottom == height else (bottom - margin) // unit * unit
    while done < ready:
      last = min(done + step, ready)
      first, end = max(top, done - margin), min(bottom, last + margin)
      rows = held[scale * (first - top) : scale * (end - top)]
      sr, large = rows[..., :channels], maps.levels(rows[..., :channels], white)
      other = maps.levels(rows[..., channels:], white) if calibration.second else None
      tiles = doubt.scores(lr[first:end], large, scale, other) >= calibration.doubt.threshold
      values = maps.compute(lr[first:end], large, scale, noise)
      own = slice(scale * (done - first), scale * (last - first))
      half = apply(calibration.interval.numbers, values[own])
      half *= calibration.interval.factor * white / 255
      yield Confidence(sr[own], half, doubt.spread(tiles, large.shape)[own])
      done = last
    first = max(top, done - margin)
    held, top = held[scale * (first - top) :], first
