"""The trust parts of a report page: audit, lesion study and reader."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsr.evaluation import html
from jaxsr.evaluation.figures import TRUST
from jaxsr.evaluation.html import figures as drawing
from jaxsr.trust import audit, readers, study

DEFINITIONS = html.terms(list(TRUST.values()))
_AUDIT = (*audit.FIGURES, 'unsupported')
_LESIONS = ('auc', 'contrast_kept', 'hits')
_READERS = ('auroc_hr', 'auroc', 'to_hr', 'to_bicubic', 'hr_to_bicubic', 'change', 'flips')


def of_audit(
  summary: Mapping[str, Mapping[str, Any]],
  rows: Sequence[Mapping[str, Any]],
  curves: Mapping[str, np.ndarray],
  film: html.Film,
) -> html.Section:
  """Returns the section of the audit: means, distributions, ring correlations, the worst film."""
  table = [
    html.Row([name, *(_audit_cell(found, key) for key in _AUDIT)])
    for name, found in summary.items()
    if found['films']
  ]
  flagged = {
    name: [100 * row['flagged'] for row in rows if row['network'] == name and row['patches']]
    for name in summary
  }
  drawn = [(drawing.distribution('flagged patches, %', flagged), DEFINITIONS['flagged'][1])]
  figure, axes = drawing.new()
  frequency = np.arange(audit.RINGS) / audit.RINGS
  for color, (name, curve) in zip(drawing.COLORS * 9, curves.items(), strict=False):
    axes.plot(frequency, curve, color=color, label=name)
  axes.axhline(audit.CORRELATED, color='#808080', linestyle=':')
  axes.set(xlabel='frequency, relative to Nyquist', ylabel='ring correlation with the original')
  drawing.legend(axes)
  drawn.append(
    (
      drawing.svg(figure),
      f'mean over patches; {DEFINITIONS["crossing"][0]}: {DEFINITIONS["crossing"][1]}',
    )
  )
  return html.Section(
    'Invented detail',
    'Patches of 64x64 pixels against the original. Flagged patches have detail that it does not '
    'have. Below, the image with the most of them: switch the marks and maps of the shown versions '
    'on.',
    [html.Table(['', *(_term(key) for key in _AUDIT)], table), html.Figures(drawn), film],
  )


def _audit_cell(found: Mapping[str, Any], key: str) -> str:
  if found[key] is None:
    return ''
  text = format(found[key], TRUST[key].format)
  if key == 'flagged' and found['flagged_interval']:
    text += ' [{:.1%},\xa0{:.1%}]'.format(*found['flagged_interval'])
  return text


def _term(key: str) -> html.Term:
  return html.Term(key, TRUST[key].title)


def of_lesions(rows: Sequence[Mapping[str, Any]]) -> list[html.Section]:
  """Returns a section per group of films and condition of the lesion study."""
  if not rows:
    return [html.Section('Lesions', f'Not run: {study.TOO_FEW}.', [])]
  groups = dict.fromkeys((row['films'], row['condition'], row['n']) for row in rows)
  sections = []
  if not any(films == 'films' for films, *_ in groups):
    sections.append(html.Section('Lesions: films', f'Not run: {study.TOO_FEW}.', []))
  for films, condition, count in groups:
    mine = [row for row in rows if (row['films'], row['condition']) == (films, condition)]
    names = [n for n in dict.fromkeys(row['network'] for row in mine) if n != study.ABSENT]
    note = (
      f'Lesions put into {count} {films}, {condition}. Brackets hold 95 % intervals of a bootstrap '
      'over patients, parentheses the 10th percentile over places. ' + _check(mine)
    )
    tables = [_table(mine, names, key) for key in _LESIONS]
    parts = [html.Figures(_curves(mine, names)), *tables]
    sections.append(html.Section(f'Lesions: {films}, {condition}', note, parts))
  return sections


def _check(rows: Sequence[Mapping[str, Any]]) -> str:
  """Describe the two rows that check the study."""
  hr, absent = (
    [row for row in rows if row['network'] == name] for name in (study.HR, study.ABSENT)
  )
  low, high = (f(row['contrast_kept'] for row in hr) for f in (min, max))
  away = max(abs(row['auc'] - 0.5) for row in absent)
  return (
    f'Checks: HR as its own network keeps {low:.2f} to {high:.2f} of the contrast; a network that '
    f'returns the original without the lesion has an AUC within {away:.3f} of 0.5.'
  )


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str], key: str) -> html.Table:
  """Returns a metric: a row per lesion, a column per network."""
  cells: dict[str, dict[str, str]] = {}
  for row in rows:
    cells.setdefault(study.title(row), {})[row['network']] = _lesion_cell(row, key)
  body = [html.Row([title, *(found[n] for n in names)]) for title, found in cells.items()]
  return html.Table([_term(key), *names], body)


def _lesion_cell(row: Mapping[str, Any], key: str) -> str:
  text = format(row[key], TRUST[key].format)
  if key == 'auc':
    return text + ' [{:.2f},\xa0{:.2f}]'.format(*row['auc_interval'])
  if key == 'contrast_kept':
    return f'{text} ({row["contrast_kept_10"]:.2f})'
  return f'{text} / {row["false_alarms"]:.2f}'


def _curves(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[str, str]]:
  """Draw AUC, contrast kept and hits of nodules against their diameter."""
  drawn = []
  nodules = [row for row in rows if row['kind'] == 'nodule']
  for key in _LESIONS:
    figure, axes = drawing.new()
    # HR is first, and has no color, so that networks have theirs of the other figures.
    for color, name in zip((drawing.TEXT, *drawing.COLORS * 9), names, strict=False):
      mine = sorted((r for r in nodules if r['network'] == name), key=lambda r: r['size'])
      axes.plot([r['size'] for r in mine], [r[key] for r in mine], 'o-', color=color, label=name)
    axes.set(xlabel='diameter of the nodule, pixels', ylabel=TRUST[key].title)
    drawing.legend(axes)
    drawn.append((drawing.svg(figure), DEFINITIONS[key][1]))
  return drawn


def of_reader(
  rows: Sequence[Mapping[str, Any]],
  reader: readers.Reader,
  left_out: Mapping[str, tuple[int, int]],
) -> html.Section:
  """Returns the section of a reader: a row per finding and network, and what is not measured."""
  note = (
    f'{reader.name} at {reader.size} pixels, on findings with at least {readers.LEAST} positive '
    'and negative images. Differences are paired, with 95 % intervals of a bootstrap over '
    f'patients. Not inferior: the interval to HR lies above -{readers.MARGIN}, a margin fixed '
    'beforehand. Not informative: the reader sees no more than the low resolution holds, or HR is '
    'not better than bicubic beyond the interval.'
  )
  if left_out:
    found = (f'{finding} ({n} positive, {m} negative)' for finding, (n, m) in left_out.items())
    note += f' Too few images: {", ".join(found)}.'
  verdicts = [row['verdict'].partition(': ')[::2] for row in rows]
  if reasons := [f'{reason}.' for reason in dict.fromkeys(each for _, each in verdicts) if reason]:
    note += f' Here: {" ".join(reasons)}'
  table = [
    html.Row(_reader_cells(row, verdict)) for row, (verdict, _) in zip(rows, verdicts, strict=True)
  ]
  head = ['finding', 'network', 'verdict', 'positive', *(_term(key) for key in _READERS)]
  return html.Section('Reader', note, [html.Table(head, table)] if table else [])


def _reader_cells(row: Mapping[str, Any], verdict: str) -> list[str]:
  images = row['positive'] + row['negative']
  cells = [row['finding'], row['network'], verdict, f'{row["positive"]} of {images}']
  for key in _READERS:
    text = format(row[key], TRUST[key].format)
    if f'{key}_interval' in row:
      text += ' [{:+.3f},\xa0{:+.3f}]'.format(*row[f'{key}_interval'])
    cells.append(text)
  return cells
