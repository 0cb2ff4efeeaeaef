"""The audit and the lesion study of models, as the further parts of an evaluation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxsr.data import degradation
from jaxsr.data.sources import Source
from jaxsr.errors import UserError
from jaxsr.evaluation import html, inputs
from jaxsr.evaluation.page import TRUST_JSON
from jaxsr.files import write_json
from jaxsr.inference.model import Model, load
from jaxsr.trust import maps, readers, run, sections, study
from jaxsr.trust.networks import enlarger, fingerprint, networks


def measure(
  models: Mapping[str, Model],
  source: Source,
  folder: Path,
  *,
  with_audit: bool = True,
  with_lesions: bool = False,
  reader: readers.Reader | None = None,
  tables: Path | None = None,
  ensemble: bool = False,
) -> list[html.Section]:
  """Audit models and study lesions in their images; write `trust.json` and the tables.

  Args:
    models: by their names, of one scale.
    source: high-resolution films.
    folder: an existing folder, in which an interrupted run continues.
    with_audit: audit the films (`trust.csv`).
    with_lesions: run the lesion study (`lesions.csv`).
    reader: a classifier of findings that is asked about all versions (`readers.csv`).
    tables: a folder with NIH's tables, for the reader; records know their findings.
    ensemble: average the networks over flips and quarter turns.

  Returns:
    Sections for the report page.
  """
  scale = next(iter(models.values())).scale
  found = {
    name: run.Network(enlarge, fingerprint(enlarge))
    for name, enlarge in networks(models, scale, ensemble=ensemble).items()
  }
  written: dict[str, Any] = {
    'version': run.VERSION,
    'scale': scale,
    'networks': {name: network.digest for name, network in found.items()},
  }
  parts: list[html.Section] = []
  if with_audit:
    audited = run.audit_films(found, source, folder, scale, _pixel(scale))
    written['audit'] = audited.summary
    film = _film(audited.films[0], found, source, scale)
    parts.append(sections.of_audit(audited.summary, audited.rows, audited.curves, film))
  if with_lesions:
    rows = run.study_lesions(found, source, folder, scale)
    written['lesions'] = rows
    parts += sections.of_lesions(rows)
  if reader is not None:
    known, _ = inputs.read_metadata(source, tables)
    labels = {name: set(row.findings.split('|')) for name, row in known.items()}
    rows, left_out = run.read_films(found, source, folder, scale, reader, labels)
    written['readers'] = rows
    parts.append(sections.of_reader(rows, reader, left_out))
  write_json(folder / TRUST_JSON, written)
  return parts


def _pixel(scale: int) -> run.Network | None:
  """Returns the pretrained network for a scale, which is trained on pixels; None without one."""
  try:
    enlarge = enlarger(load(scale=scale))
  except UserError:
    return None
  return run.Network(enlarge, fingerprint(enlarge))


def _film(
  audited: maps.AuditedFilm, found: Mapping[str, run.Network], source: Source, scale: int
) -> html.Film:
  """Returns an audited film with the maps of each network, the most flagged network first."""
  film = degradation.cut(source[audited.index], scale)
  lr = degradation.downscale(film, scale)[None]
  known = dict(sorted(audited.patches.items(), key=lambda each: -each[1].share))
  versions = {'HR': study.gray(film)}
  versions |= {key: study.gray(found[key].enlarge(lr))[0] for key in known}
  captions = {'HR': 'HR, the original'}
  captions |= {key: f'{key}, {patches.share:.1%} flagged' for key, patches in known.items()}
  places = {key: maps.place(patches, audited.shape) for key, patches in known.items()}
  overlays = {
    'flagged': lambda patches: patches.flagged,
    'invented energy, 0 to 1': maps.invented,
    'null space, 0 to 10 gray levels': maps.null,
  }
  return html.Film(
    f'most flagged patches: {audited.name}',
    {key: image[..., None] for key, image in versions.items()},
    captions,
    {f'most invented in {key}': place for key, place in places.items() if place},
    {
      title: {key: maps.pixels(of(patches), audited.shape) for key, patches in known.items()}
      for title, of in overlays.items()
    },
  )
