"""The results of the audit, the lesion study and the reader as text for a terminal."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxsr.evaluation.figures import TRUST
from jaxsr.trust import readers, study

_AUDIT = ('flagged', 'invented', 'crossing', 'unsupported')
_READER = ('auroc', 'to_hr', 'to_bicubic')


def tables(found: Mapping[str, Any]) -> str:
  """Returns the content of `trust.json` as tables."""
  parts = []
  if audited := {n: row for n, row in found.get('audit', {}).items() if row['films']}:
    rows = [[TRUST[key].title, *(_cell(row, key) for row in audited.values())] for key in _AUDIT]
    parts.append(_lay_out(['invented detail', *audited], rows))
  lesions = found.get('lesions', [])
  for films, condition in dict.fromkeys((row['films'], row['condition']) for row in lesions):
    mine = [row for row in lesions if (row['films'], row['condition']) == (films, condition)]
    names = [n for n in dict.fromkeys(row['network'] for row in mine) if n != study.ABSENT]
    cells: dict[str, list[str]] = {}
    for row in mine:
      if row['network'] in names:
        text = f'{_cell(row, "auc")} {_cell(row, "contrast_kept")}'
        cells.setdefault(study.title(row), []).append(text)
    title = f'AUC, contrast kept: {films}, {condition}'
    parts.append(_lay_out([title, *names], [[name, *row] for name, row in cells.items()]))
  if 'lesions' in found and not any(row['films'] == 'films' for row in lesions):
    parts.append(f'lesions: {study.TOO_FEW}')
  if found.get('readers') == []:
    parts.append(
      f'reader: no finding has {readers.LEAST} positive and {readers.LEAST} negative images'
    )
  if rows := found.get('readers', []):
    titles = ['reader', 'network', *(TRUST[key].title for key in _READER), 'verdict']
    body = [
      [row['finding'], row['network'], *(_cell(row, key) for key in _READER), row['verdict']]
      for row in rows
    ]
    parts.append(_lay_out(titles, body))
  return '\n\n'.join(parts)


def _cell(row: Mapping[str, Any], key: str) -> str:
  return '' if row.get(key) is None else format(row[key], TRUST[key].format)


def _lay_out(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Align columns: the first to the left, the others to the right."""
  lines = [head, *rows]
  widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
  return '\n'.join(
    '  '.join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
    for line in lines
  )
