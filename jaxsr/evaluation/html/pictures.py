"""Images as data URIs, and the views of a film."""

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

if TYPE_CHECKING:
  from jaxsr.evaluation.html import Film

Picture = Float[np.ndarray, 'h w c']

_LONGEST = 1024  # pixels of the longer side of a full film in a page
_QUALITY = 90  # of the JPEG of a full film; places are PNG, without loss
_MASK = (255, 140, 0, 110)  # red, green, blue, opacity


class View(NamedTuple):
  """A film or one of its places: data URIs of its versions and overlays by their titles."""

  title: str
  is_detail: bool
  width: int
  height: int
  versions: Mapping[str, str]
  overlays: Mapping[str, str]


def png(picture: Picture) -> str:
  """Returns a picture in [0, 1] as the data URI of a PNG."""
  return _encode(_image(picture), 'PNG', optimize=True)


def views(film: 'Film') -> list[View]:
  """Returns the views of a film: all of it, then its places."""
  height, width = next(iter(film.versions.values())).shape[:2]
  factor = min(1.0, _LONGEST / max(height, width))
  size = max(1, round(width * factor)), max(1, round(height * factor))

  def whole(picture: Picture) -> str:
    image = _image(picture)
    image = image if factor == 1 else image.resize(size, Image.Resampling.LANCZOS)
    return _encode(image, 'JPEG', quality=_QUALITY)

  found = [
    View(
      'whole film',
      False,
      *size,
      {name: whole(picture) for name, picture in film.versions.items()},
      {name: _overlay(mask) for name, mask in film.overlays.items()},
    )
  ]
  for title, (row, column, side) in film.places.items():
    cut = np.s_[row : row + side, column : column + side]
    found.append(
      View(
        title,
        True,
        side,
        side,
        {name: png(picture[cut]) for name, picture in film.versions.items()},
        {name: _overlay(mask[cut]) for name, mask in film.overlays.items()},
      )
    )
  return found


def _image(picture: Picture) -> Image.Image:
  pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
  return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _overlay(mask: Bool[np.ndarray, 'h w']) -> str:
  return _encode(
    Image.fromarray(mask[..., None] * np.array(_MASK, np.uint8), 'RGBA'), 'PNG', optimize=True
  )


def _encode(image: Image.Image, kind: str, **options: object) -> str:
  data = io.BytesIO()
  image.save(data, kind, **options)
  return f'data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}'
