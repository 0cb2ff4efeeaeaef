"""Images as data URIs, and the views of a film."""

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from scipy import ndimage

if TYPE_CHECKING:
  from jaxsr.evaluation.html import Film

Picture = Float[np.ndarray, 'h w c']
Mask = Bool[np.ndarray, 'h w'] | Float[np.ndarray, 'h w']

_LONGEST = 1024  # pixels of the longer side of a full film in a page
_QUALITY = 90  # of the JPEG of a full film; places are PNG, without loss
_COLOR = (255, 140, 0)  # red, green, blue of overlays
_FILL, _EDGE, _MAP = 60, 255, 170  # opacity inside and at the edges of a mask, and of a map at 1


class View(NamedTuple):
  """A film or one of its places: data URIs of its versions, and of the overlays of each."""

  title: str
  is_detail: bool
  width: int
  height: int
  versions: Mapping[str, str]
  overlays: Mapping[str, Mapping[str, str]]


def png(picture: Picture) -> str:
  """Returns a picture in [0, 1] as the data URI of a PNG."""
  return _encode(_image(picture), 'PNG', optimize=True)


def views(film: 'Film') -> list[View]:
  """Returns the views of a film: all of it, then its places."""
  height, width = next(iter(film.versions.values())).shape[:2]
  factor = min(1.0, _LONGEST / max(height, width))
  size = max(1, round(width * factor)), max(1, round(height * factor))
  step = max(1, int(1 / factor))  # the page stretches overlays over the film

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
      _overlays(film, np.s_[::step, ::step]),
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
        _overlays(film, cut),
      )
    )
  return found


def _image(picture: Picture) -> Image.Image:
  pixels = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
  return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _overlays(film: 'Film', cut: tuple[slice, slice]) -> dict[str, dict[str, str]]:
  return {
    title: {name: _overlay(mask[cut]) for name, mask in masks.items()}
    for title, masks in film.overlays.items()
  }


def _overlay(mask: Mask) -> str:
  """Returns a transparent picture: a mask with its edges, or a map whose values are opacities."""
  pixels = np.full((*mask.shape, 4), (*_COLOR, 0), np.uint8)
  if mask.dtype == bool:
    width = max(1, min(mask.shape) // 400)
    inside = np.asarray(ndimage.binary_erosion(mask, iterations=width))
    edge = mask & np.logical_not(inside)
    pixels[..., 3] = np.where(edge, _EDGE, _FILL * mask)
  else:
    pixels[..., 3] = np.rint(_MAP * np.clip(mask, 0, 1))
  return _encode(Image.fromarray(pixels, 'RGBA'), 'PNG', optimize=True)


def _encode(image: Image.Image, kind: str, **options: object) -> str:
  data = io.BytesIO()
  image.save(data, kind, **options)
  return f'data:image/{kind.lower()};base64,{base64.b64encode(data.getvalue()).decode()}'
