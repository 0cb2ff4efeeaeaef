"""`jaxsr models`."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, Literal

import tyro

from jaxsr import analysis, models
from jaxsr import config as configs
from jaxsr.analysis import Costs, Layer
from jaxsr.config import Config
from jaxsr.errors import UserError, first_line, nearest


@dataclass(frozen=True)
class Models:
  """Tell what networks cost for a film of 1024x1024, counted from their traced computation.

  Without a name, all of them; with one, its layers as well. `--config.model.KEY=VALUE` sets any of
  its options, `--config.precision=bfloat16` and the like what else a config has.
  """

  name: Annotated[str | None, tyro.conf.Positional] = None
  """A network."""
  scale: Literal[2, 3, 4, 8] = 4
  """How many times the film is enlarged."""
  channels: Literal[1, 3] = 1
  """1 gray, 3 RGB."""
  width: float = 1.0
  """Multiplies the features, in (0, 1]."""
  depth: float = 1.0
  """Multiplies the blocks, in (0, 1]."""
  overrides: tyro.conf.Suppress[tuple[str, ...]] = ()
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Print the table, or one network's layers; return the exit code."""
    if self.name is not None:
      self._describe(self.name)
      return 0
    if self.overrides:
      raise UserError(f'{self.overrides[0]}: say of which network, as in jaxsr models rdn')
    print(_task(self.scale))
    _row('network', 'parameters', 'GMACs', 'radius', 'activations')
    for name in models.MODELS:
      _print_costs(name, analysis.measure(configs.build_network(self._config(name))))
    print(_LEGEND)
    return 0

  def _config(self, name: str) -> Config:
    if name not in models.MODELS:
      raise UserError(f'network {name!r} is unknown: {nearest(name, models.MODELS)}')
    config = configs.base()
    config.scale, config.channels = self.scale, self.channels
    config.model = configs.network(name)
    for key, value in (('width', self.width), ('depth', self.depth)):
      if key in config.model or (self.name is not None and value != 1):  # then it is refused
        config.model[key] = value
    return configs.override(config, self.overrides)

  def _describe(self, name: str) -> None:
    network = configs.build_network(self._config(name))
    try:
      found, total = analysis.layers(network), analysis.measure(network)
    except (ValueError, TypeError, ZeroDivisionError) as error:
      raise UserError(f'config.model: {first_line(error)}') from error
    print(_task(network.scale))
    print(f'{"layer":40s} {"output":>16s} {"parameters":>12s} {"GMACs":>10s}')
    for indent, label, layer in _lines([found], 0):
      shape = 'x'.join(map(str, layer.output[1:]))
      gmacs = f'{layer.macs / 1e9:.3f}'
      print(f'{"  " * indent + label:40s} {shape:>16s} {layer.parameters:12,d} {gmacs:>10s}')
    _row('', 'parameters', 'GMACs', 'radius', 'activations')
    _print_costs(name, total)
    print(_LEGEND)


_LEGEND = (
  'radius: low-resolution pixels away from which a pixel can matter\n'
  'activations: the most that live at once in inference'
)


def _task(scale: int) -> str:
  side = analysis.SIDE // scale
  return f'{side}x{side} -> {side * scale}x{side * scale}, one image'


def _row(*cells: str) -> None:
  print('{:16s} {:>12s} {:>10s} {:>12s} {:>12s}'.format(*cells), flush=True)


def _print_costs(name: str, found: Costs) -> None:
  radius = 'whole image' if found.radius is None else str(found.radius)
  memory = f'{found.memory / 2**20:,.0f} MiB'
  _row(name, f'{found.parameters:,}', f'{found.macs / 1e9:,.2f}', radius, memory)


def _lines(layers: Iterable[Layer], indent: int) -> Iterator[tuple[int, str, Layer]]:
  """Write a tree as lines; numbered neighbours that are alike share one."""
  for _, alike in groupby(layers, key=_kind):
    first, *others = alike
    name = f'{first.name} ... {others[-1].name}, each' if others else first.name
    yield indent, name, first
    yield from _lines(first.inner, indent + 1)


def _kind(layer: Layer) -> tuple:
  """Tell what makes two layers alike: all but their number."""
  inner = tuple((each.name, _kind(each)) for each in layer.inner)
  return re.sub(r'\d+$', '', layer.name), *layer[1:4], inner
