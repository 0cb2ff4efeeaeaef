"""One network that runs at several widths and depths.

A smaller size has the first channels of the full network and blocks at even distances (Yu & Huang,
Universally Slimmable Networks and Improved Training Techniques, ICCV 2019). The term `slimmable`
trains it: at each step the smallest size and one in between learn from the full network's image.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from jaxsr import models
from jaxsr.compression.slicing import Cut, make_cut
from jaxsr.errors import UserError
from jaxsr.models import Network


class Size(NamedTuple):
  """A smaller size of a network, and how its weights are cut."""

  width: float
  depth: float
  network: Network
  cut: Cut


def make_sizes(
  network: Network, model: Any, *, widths: Sequence[float], depths: Sequence[float]
) -> tuple[Size, ...]:
  """Returns the sizes of a network from the smallest on, without the full one.

  Args:
    network: The full network.
    model: The section `model` of its config.
    widths: Fractions of its channels.
    depths: Fractions of its blocks.

  Raises:
    UserError: The network has BatchNorm, whose statistics are not valid at several widths.
  """
  full = models.shapes(network)
  if 'batch_stats' in full:
    name = model['name']
    raise UserError(
      f'network {name!r} has BatchNorm, whose statistics are valid at one width only; choose a '
      'network without it'
    )
  wanted = sorted(set(product(widths, depths)) - {(1.0, 1.0)})
  found = [(w, d, shrink(network, model, w, d)) for w, d in wanted]
  return tuple(
    Size(w, d, small, make_cut(small, network, full, ranked=False)) for w, d, small in found
  )


def shrink(network: Network, model: Any, width: float, depth: float) -> Network:
  """Build a network at a fraction of its width and depth."""
  options = {k: v for k, v in dict(model).items() if k != 'name'}
  options['width'] = options.get('width', 1.0) * width
  options['depth'] = options.get('depth', 1.0) * depth
  scale, channels = network.scale, network.channels  # type: ignore[attr-defined]
  small = models.build(model['name'], options, scale=scale, channels=channels)
  return small.clone(dtype=network.dtype)  # type: ignore[attr-defined]
