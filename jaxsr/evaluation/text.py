"""The table of an evaluation as text."""

from collections.abc import Mapping
from typing import Any

from jaxsr.errors import count
from jaxsr.evaluation import figures


def table(summary: Mapping[str, Any]) -> str:
  """Lay out a summary as text: the figures of the model, of bicubic, and their difference."""
  name = summary['checkpoint']
  step = '' if summary['checkpoint_step'] is None else f', step {summary["checkpoint_step"]}'
  images = count(summary['n'], 'image')
  width = max(len(name), len('bicubic'))
  line = f'{{:17s}} {{:>{width}s}} {{:>9s}} {{:>8s}}'.format
  lines = [
    f'{name}{step}, x{summary["scale"]}, protocol {summary["protocol"]}, {images}',
    line('', name, 'bicubic', 'gain'),
  ]
  for figure in figures.compared(summary):
    own, bicubic = summary[figure.name], summary[f'bicubic_{figure.name}']
    cells = (
      f'{own:{figure.format}}',
      f'{bicubic:{figure.format}}',
      f'{own - bicubic:+{figure.format}}',
    )
    lines.append(line(figure.title, *cells))
  if 'raw_psnr' in summary:
    share = f'{summary["agreeing"]:.5%}'
    lines.append(f'made to agree with the input: {name} does in {share} of the pixels')
  for kind, values in summary.get('strata', {}).items():
    lines += _strata(kind, values)
  if 'regions' in summary:
    lines += _strata('inside boxes', summary['regions'])
  if summary['images_below_bicubic'] and summary['network'] != 'bicubic':
    lines.append(
      f'worse than bicubic on {summary["images_below_bicubic"]} of {summary["n"]} images'
    )
  return '\n'.join(lines)


def _strata(kind: str, values: Mapping[str, Any]) -> list[str]:
  """Lay out figures by stratum, each with its 95 % interval."""
  lines = [f'{kind:19s} {"n":>5s} {"patients":>8s}  {"PSNR":22s} {"gain":20s} SSIM']
  shown = (('psnr', 2), ('psnr_gain', 2), ('ssim', 4))
  for value, found in values.items():
    cells = [_with_interval(found, *figure) for figure in shown]
    counts = f'{found["n"]:5d} {found["patients"]:8d}'
    lines.append(f'  {value:17s} {counts}  {cells[0]:22s} {cells[1]:20s} {cells[2]}')
  return lines


def _with_interval(found: Mapping[str, Any], name: str, digits: int) -> str:
  ends = found[f'{name}_interval']
  text = f'{found[name]:.{digits}f}'
  return text if ends is None else f'{text} [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]'
