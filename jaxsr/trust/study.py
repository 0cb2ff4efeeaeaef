"""The lesion study: how well observers see inserted lesions in the images of networks."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt

from jaxsr.data import degradation
from jaxsr.data.acquisition import CONDITIONS as ACQUISITIONS
from jaxsr.data.acquisition import film as acquisition
from jaxsr.data.acquisition import generator as noise_of
from jaxsr.data.phantom import phantom
from jaxsr.trust import Enlarge, lesions, observers
from jaxsr.trust.lesions import DESIGN, Lesion

HR, ABSENT = 'HR', 'film without the lesion'  # the two rows that check the study itself
CONDITIONS = ('clean', 'low_dose')
PHANTOMS, PHANTOM_SEED = 20, 2_900  # how many, and the family that no network is trained on
SMALLEST = 4  # patients
TOO_FEW = f'fewer than {SMALLEST} patients have images with places for lesions'


class Outputs(NamedTuple):
  """The inputs of the observers, from one network's images of a film.

  Attributes:
    present: channel outputs with the lesion, [lesions, places, channels].
    absent: the same without it.
    kept: the share of the lesion's contrast that is kept, [lesions, places].
  """

  present: Float[np.ndarray, 'lesions places channels']
  absent: Float[np.ndarray, 'lesions places channels']
  kept: Float[np.ndarray, 'lesions places']


class Subject(NamedTuple):
  """A film with its lesions.

  Attributes:
    name: its file name.
    absent: crops around its places, [places, side, side, channels].
    present: the same with each lesion, [lesions, places, side, side, channels].
  """

  name: str
  absent: UInt[np.ndarray, 'places side side c']
  present: UInt[np.ndarray, 'lesions places side side c']


def subject(film: UInt[np.ndarray, 'h w c'], name: str, scale: int) -> Subject | None:
  """Choose a film's places and insert the lesions; None if it has too few places."""
  side = lesions.crop_side(scale)
  if min(film.shape[:2]) < side:
    return None
  rng = lesions.generator(name)
  centers = lesions.places(gray(film[None])[0], rng)
  if not centers:
    return None
  absent = lesions.crops(film, centers, scale)
  offsets = rng.uniform(-scale / 2, scale / 2, (len(centers), 2))
  present = [
    [
      lesions.insert(crop, lesions.profile(lesion, side, tuple(offset)), lesion.contrast)
      for crop, offset in zip(absent, offsets, strict=True)
    ]
    for lesion in DESIGN
  ]
  return Subject(name, absent, np.array(present))


def phantoms() -> Iterator[tuple[UInt[np.ndarray, 'h w c'], str, str]]:
  """Yield the phantoms of the study: film, name and patient."""
  for i in range(PHANTOMS):
    name = f'phantom_{i:04d}.png'
    yield phantom(PHANTOM_SEED, i, nodules=0)[..., None], name, name


def observe(found: Subject, enlarge: Enlarge | None, condition: str, scale: int) -> Outputs:
  """Reduce the crops of a film under a condition, upscale them, and look at them.

  Args:
    found: the film.
    enlarge: the network; None observes HR itself.
    condition: 'clean' or the name of an acquisition.
    scale: the factor.
  """
  images = np.concatenate([found.absent[None], found.present])
  hr = gray(images)
  sr = hr
  if enlarge is not None:
    lr = np.stack([
      _reduce(crop, condition, f'{found.name}/{place}', scale)
      for crops in images
      for place, crop in enumerate(crops)
    ])  # fmt: skip
    sr = gray(enlarge(lr)).reshape(hr.shape)
  shape = (*hr.shape[:2], observers.CHANNELS)
  present, absent = (np.zeros((shape[0] - 1, *shape[1:])) for _ in range(2))
  for i, lesion in enumerate(DESIGN):
    for into, image in ((present, sr[i + 1]), (absent, sr[0])):
      values = observers.look(image, lesion)
      into[i, :, : values.shape[1]] = values
  have, wanted = (observers.roi((x[1:] - x[0]).reshape(-1, *x.shape[2:])) for x in (sr, hr))
  kept = (have * wanted).sum((1, 2)) / np.maximum(np.square(wanted).sum((1, 2)), 1e-12)
  return Outputs(present, absent, kept.reshape(len(DESIGN), -1))


def title(row: Mapping[str, Any]) -> str:
  """Returns the title of the lesion of a row of `summarize`."""
  return Lesion(row['kind'], row['size'], row['contrast']).title


def gray(images: UInt[np.ndarray, '*b c']) -> Float[np.ndarray, '*b']:
  """Returns integer images [..., c] as floats in [0, 1], averaged over their channels."""
  return images.mean(-1, dtype=np.float64) / np.iinfo(images.dtype).max


def _reduce(crop: np.ndarray, condition: str, name: str, scale: int) -> np.ndarray:
  if condition == 'clean':
    return degradation.downscale(crop, scale)
  rng = noise_of(name, condition)
  return acquisition.acquire(crop, ACQUISITIONS[condition], rng, scale=scale)


def summarize(
  outputs: Mapping[str, Sequence[Outputs]], patients: Sequence[str]
) -> list[dict[str, Any]]:
  """Train and test the observers on the films of one condition.

  Args:
    outputs: of each network, film by film; HR is one of them.
    patients: of each film.

  Returns:
    A row per lesion and network: 'auc', 'auc_interval', its paired difference to bicubic
    'to_bicubic' and to HR 'to_hr' with their intervals, the median of the contrast that is kept
    'contrast_kept' and its 10th percentile 'contrast_kept_10', and 'hits' and 'false_alarms' of
    HR's observer.
  """
  joined = {
    name: Outputs(*(np.concatenate(part, axis=1) for part in zip(*found, strict=True)))
    for name, found in outputs.items()
  }
  of_hr = joined[HR]
  joined[ABSENT] = Outputs(of_hr.absent, of_hr.absent, np.zeros_like(of_hr.kept))
  _, numbers = np.unique(patients, return_inverse=True)
  places = next(iter(outputs.values()))[0].kept.shape[1]
  whose = np.repeat(numbers, places)
  rows = []
  for i, lesion in enumerate(DESIGN):
    count = observers.channels(lesion).shape[1]
    values = {k: (x.present[i, :, :count], x.absent[i, :, :count]) for k, x in joined.items()}
    curves = {
      name: observers.Auc(*observers.cross_scores(*both, whose), whose)
      for name, both in values.items()
    }
    for name, curve in curves.items():
      rows.append(_row(lesion, name, curve, curves, joined[name].kept[i]))
      rows[-1]['hits'], rows[-1]['false_alarms'] = observers.fixed(*values[name], values[HR])
  return rows


def _row(
  lesion: Lesion,
  name: str,
  curve: observers.Auc,
  curves: Mapping[str, observers.Auc],
  kept: np.ndarray,
) -> dict[str, Any]:
  row: dict[str, Any] = {'network': name, **lesion._asdict()}
  row |= {'auc': curve.value, 'auc_interval': curve.interval()}
  for key, other in (('to_bicubic', 'bicubic'), ('to_hr', HR)):
    row[key], row[f'{key}_interval'] = curve.difference(curves[other])
  row |= {
    'contrast_kept': float(np.median(kept)),
    'contrast_kept_10': float(np.percentile(kept, 10)),
  }
  return row
