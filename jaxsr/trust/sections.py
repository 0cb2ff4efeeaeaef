"""The trust parts of a report page: audit, lesion study and reader."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsr.evaluation import html
from jaxsr.evaluation.figures import TRUST
from jaxsr.evaluation.html import figures as drawing
from jaxsr.trust import audit, readers, study

DEFINITIONS = html.terms(list(TRUST.values()))
_AUDIT = ('flagged', 'invented', 'energy', 'correlation', 'crossing', 'contradicted', 'null')
_AUDIT += ('null_error', 'unsupported')
_LESIONS = ('auc', 'contrast_kept', 'hits')


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
  drawn = [(drawing.distribution('flagged patches, %', flagged), 'per image')]
  figure, axes = drawing.new()
  frequency = np.arange(audit.RINGS) / audit.RINGS
  for color, (name, curve) in zip(drawing.COLORS * 9, curves.items(), strict=False):
    axes.plot(frequency, curve, color=color, label=name)
  axes.axhline(audit.CORRELATED, color='#808080', linestyle=':')
  axes.set(xlabel='frequency, relative to Nyquist', ylabel='ring correlation with the original')
  drawing.legend(axes)
  drawn.append((drawing.svg(figure), 'mean over patches'))
  return html.Section(
    'Invented detail',
    'Patches of 64x64 pixels against the original. Flagged patches have detail that it does not '
    'have. Below, the image with the most of them; switch the marks on.',
    [html.Table(['', *(_term(key) for key in _AUDIT)], table), html.Figures(drawn), film],
  )


def _audit_cell(found: Mapping[str, Any], key: str) -> str:
  if found[key] is None:
    return ''
  text = format(found[key], TRUST[key].format)
  if key == 'flagged' and found['flagged_interval']:
    text += ' [{:.1%}, {:.1%}]'.format(*found['flagged_interval'])
  return text


def _term(key: str) -> html.Term:
  return html.Term(key, TRUST[key].title)


def of_lesions(rows: Sequence[Mapping[str, Any]]) -> list[html.Section]:
  """Returns a section per group of films and condition of the lesion study."""
  if not rows:
    note = f'Not run: fewer than {study.SMALLEST} patients have places for lesions.'
    return [html.Section('Lesions', note, [])]
  groups = dict.fromkeys((row['films'], row['condition'], row['n']) for row in rows)
  sections = []
  for films, condition, count in groups:
    mine = [row for row in rows if (row['films'], row['condition']) == (films, condition)]
    names = [n for n in dict.fromkeys(row['network'] for row in mine) if n != study.ABSENT]
    note = (
      f'Lesions put into {count} {films} at {condition}. Each cell: AUC with its 95 % interval; '
      'contrast kept (10th percentile); hits / false alarms of the observer of HR. ' + _check(mine)
    )
    terms = html.Table([_term(key) for key in _LESIONS], [])
    parts = [html.Figures(_curves(mine, names)), terms, _table(mine, names)]
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


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> html.Table:
  cells: dict[str, dict[str, str]] = {}
  for row in rows:
    low, high = row['auc_interval']
    kept = f'{row["contrast_kept"]:.2f} ({row["contrast_kept_10"]:.2f})'
    found = f'{row["hits"]:.2f} / {row["false_alarms"]:.2f}'
    text = f'{row["auc"]:.3f} [{low:.2f}, {high:.2f}]; {kept}; {found}'
    cells.setdefault(_title(row), {})[row['network']] = text
  body = [html.Row([title, *(found[n] for n in names)]) for title, found in cells.items()]
  return html.Table(['lesion', *names], body)


def _title(row: Mapping[str, Any]) -> str:
  return study.Lesion(row['kind'], row['size'], row['contrast']).title


def _curves(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[tuple[str, str]]:
  """Draw AUC, contrast kept and hits of nodules against their diameter."""
  drawn = []
  nodules = [row for row in rows if row['kind'] == 'nodule']
  for key in _LESIONS:
    figure, axes = drawing.new()
    for color, name in zip(drawing.COLORS * 9, names, strict=False):
      mine = sorted((r for r in nodules if r['network'] == name), key=lambda r: r['size'])
      axes.plot([r['size'] for r in mine], [r[key] for r in mine], 'o-', color=color, label=name)
    axes.set(xlabel='diameter of the nodule, pixels', ylabel=TRUST[key].title)
    drawing.legend(axes)
    drawn.append((drawing.svg(figure), DEFINITIONS[key][1]))
  return drawn


def of_reader(rows: Sequence[Mapping[str, Any]], reader: readers.Reader) -> html.Section:
  """Returns the section of a reader: a row per finding and network."""
  note = (
    f'{reader.name} at {reader.size} pixels, on findings with at least {readers.LEAST} positive '
    'and negative images. Differences are paired, with 95 % intervals of a bootstrap over '
    f'patients. Not inferior: the interval to HR lies above -{readers.MARGIN}, fixed beforehand. '
    'Not informative: the reader sees no more than the low resolution holds, or HR is not better '
    'than bicubic beyond the interval.'
  )
  if not rows:
    return html.Section('Reader', f'{note} No finding has enough images.', [])
  head = ['finding', 'network', 'positive', 'AUROC HR', 'AUROC', 'to HR', 'to bicubic']
  head += ['HR to bicubic', 'change', 'flips', 'verdict']
  table = []
  for row in rows:
    cells = [row['finding'], row['network'], f'{row["positive"]}', f'{row["auroc_hr"]:.3f}']
    cells.append(f'{row["auroc"]:.3f}')
    for key in ('to_hr', 'to_bicubic', 'hr_to_bicubic'):
      low, high = row[f'{key}_interval']
      cells.append(f'{row[key]:+.3f} [{low:+.3f}, {high:+.3f}]')
    inferior = 'not inferior' if row['non_inferior'] else 'not shown'
    verdict = inferior if row['informative'] else 'not informative'
    cells += [f'{row["change"]:.4f}', f'{row["flips"]:.1%}', verdict]
    table.append(html.Row(cells))
  return html.Section('Reader', note, [html.Table(head, table)])
