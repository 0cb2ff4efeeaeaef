"""Write the files of an evaluation: its figures, the contact sheet and the page."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from jaxsr.data import image_files
from jaxsr.errors import count
from jaxsr.evaluation import conditions_report, own_files, page, plots, stratified
from jaxsr.evaluation import html as pages
from jaxsr.evaluation.evaluator import Figures
from jaxsr.files import to_csv, write_json, write_text

SUMMARY, PER_IMAGE, SHEET = 'summary.json', 'per_image.csv', 'contact_sheet.png'
STRATA, BOXES = 'strata.csv', 'regions.csv'


def ranks(rows: Sequence[Figures]) -> dict[str, int]:
  """Returns the indices of the best, the median and the worst image by PSNR."""
  order = sorted(range(len(rows)), key=lambda i: rows[i]['psnr'])
  return {'best': order[-1], 'median': order[len(order) // 2], 'worst': order[0]}


def _caption(rank: str, row: Figures) -> str:
  psnr, bicubic = row['psnr'], row['bicubic_psnr']
  return (
    f'{rank}: {row["file"]}   PSNR {psnr:.2f} dB (bicubic {bicubic:.2f}, {psnr - bicubic:+.2f})   '
    f'SSIM {row["ssim"]:.4f} ({row["bicubic_ssim"]:.4f})   '
    f'center {row["psnr_centre"]:.2f} dB ({row["bicubic_psnr_centre"]:.2f})'
  )


def write(
  output: Path,
  inside: Sequence[Figures],
  result: page.Result,
  more: Sequence[pages.Section],
) -> None:
  """Write an evaluation's files; those of an earlier evaluation are replaced or removed.

  Args:
    output: the folder.
    inside: figures inside NIH's boxes, one row per box.
    result: the model's figures, and the images that are shown.
    more: further sections of the page.
  """
  summary = result.summary
  if replaced := _describe(output / SUMMARY):
    print(f'{output}: replaces the evaluation of {replaced}', file=sys.stderr, flush=True)
    (output / pages.PAGE).unlink(missing_ok=True)
  write_text(output / PER_IMAGE, to_csv(result.rows))
  strata = stratified.lines(summary.get('strata', {}))
  for name, lines in ((STRATA, strata), (BOXES, inside)):
    if lines:
      write_text(output / name, to_csv(lines))
    elif replaced:
      (output / name).unlink(missing_ok=True)
  examples = [
    example._replace(title=_caption(rank, row)) for rank, (row, example) in result.shown.items()
  ]
  image_files.write(output / SHEET, plots.contact_sheet(examples), own_files.NOTE)
  if absent := pages.missing():
    note = f'{pages.PAGE} is left out: it needs {" and ".join(absent)}; {pages.INSTALL}'
    print(note, file=sys.stderr, flush=True)
  else:
    page.write(output, [result], more)
  if replaced and not more:
    page.remove_parts(output)
  if 'conditions' in summary:
    conditions_report.write(output, summary['conditions'])
  elif replaced:
    conditions_report.remove(output)
  write_json(output / SUMMARY, summary)


def _describe(path: Path) -> str:
  """Describe the evaluation in a summary by its model and images; '' if there is none."""
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    name = found.get('checkpoint', found['network'])
    data = f' on {found["data"]}' if 'data' in found else ''
    return f'{name}{data} ({count(found["n"], "image")})'
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return ''
