"""`jaxsr models`: the networks and their cost, layer by layer."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from jaxsr import analysis, models
from jaxsr import config as configs
from jaxsr.analysis import Costs, Layer
from jaxsr.commands.options import Models
from jaxsr.config import Config
from jaxsr.config.overrides import override
from jaxsr.errors import UserError, first_line, nearest


def run(options: Models) -> int:
  """Print all networks, or the layers of one; returns the exit code."""
  if options.name is not None:
    _describe(options, options.name)
    return 0
  if options.overrides:
    raise UserError(f'{options.overrides[0]}: name the network as well, as in jaxsr models rdn')
  print(_task(options.scale))
  _row('network', 'parameters', 'GMACs', 'radius', 'activations')
  for name in models.MODELS:
    _print_costs(name, analysis.measure(configs.build_network(_config(options, name))))
  print(_LEGEND)
  return 0


def _config(options: Models, name: str) -> Config:
  if name not in models.MODELS:
    raise UserError(f'network {name!r} is unknown: {nearest(name, models.MODELS)}')
  config = configs.base()
  config.scale, config.channels = options.scale, options.channels
  config.model = configs.network(name)
  for key, value in (('width', options.width), ('depth', options.depth)):
    if key in config.model or (options.name is not None and value != 1):  # then it is refused
      config.model[key] = value
  return override(config, options.overrides)


def _describe(options: Models, name: str) -> None:
  network = configs.build_network(_config(options, name))
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
  'radius: receptive-field radius in low-resolution pixels\n'
  'activations: peak activation memory in inference'
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
  """Yield a line per layer of a tree; identical consecutive layers share a line."""
  for _, alike in groupby(layers, key=_kind):
    first, *others = alike
    name = f'{first.name} ... {others[-1].name}, each' if others else first.name
    yield indent, name, first
    yield from _lines(first.inner, indent + 1)


def _kind(layer: Layer) -> tuple:
  """Returns the properties in which identical layers agree: all but their number."""
  inner = tuple((each.name, _kind(each)) for each in layer.inner)
  return re.sub(r'\d+$', '', layer.name), *layer[1:4], inner
