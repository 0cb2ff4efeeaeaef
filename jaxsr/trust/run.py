"""Run the audit and the lesion study on the films of a source, and write their files.

What was computed for a film and a network is kept in `trust/` below the output, under a digest of
the film, the network's behavior and the condition, so that an interrupted run continues.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from jaxsr.data import degradation, image_files
from jaxsr.data.sources import Source
from jaxsr.errors import ImageError, UserError
from jaxsr.evaluation import own_files, stratified
from jaxsr.evaluation.page import AUDIT_CSV, AUDIT_PNG, LESIONS_CSV, READERS_CSV
from jaxsr.files import atomic, make_folder, to_csv, write_text
from jaxsr.trust import Enlarge, audit, maps, readers, study

FOLDER = 'trust'
VERSION = 1  # of the files in `FOLDER`


class Network(NamedTuple):
  """A network under audit, and a digest of its outputs."""

  enlarge: Enlarge
  digest: str


class Audit(NamedTuple):
  """The audit of all films.

  Attributes:
    rows: one per film and network.
    summary: means over films by network; 'flagged_interval' is a bootstrap over patients.
    curves: the mean ring correlation by network.
    films: the films with the largest shares of flagged patches of any network, largest first.
  """

  rows: list[dict[str, Any]]
  summary: dict[str, dict[str, Any]]
  curves: dict[str, np.ndarray]
  films: list[maps.AuditedFilm]


def audit_films(
  networks: Mapping[str, Network], source: Source, folder: Path, scale: int, pixel: Network | None
) -> Audit:
  """Audit every film that can be read, and write `trust.csv` and `trust.png`.

  Args:
    networks: by their names.
    source: the films.
    folder: an existing folder.
    scale: the factor.
    pixel: the network trained on pixels that `unsupported` compares with, if there is one.
  """
  rows: list[dict[str, Any]] = []
  curves: dict[str, list[np.ndarray]] = {name: [] for name in networks}
  patients = []
  films: list[maps.AuditedFilm] = []
  for index, film in _films(source, scale, 'audit'):
    upscaled = _Upscaled(film, scale)
    here = {}
    for name, network in networks.items():

      def compute(network: Network = network, upscaled: '_Upscaled' = upscaled) -> dict[str, Any]:
        sr = upscaled(network)
        found = audit.audit(sr, upscaled.hr, scale)._asdict()
        found['unsupported'] = np.nan
        if pixel is not None and network.digest != pixel.digest:
          found['unsupported'] = audit.unsupported(sr, upscaled(pixel), scale)
        return found

      key = _digest(film, network.digest, pixel and pixel.digest, scale)
      found = _keep(folder / FOLDER / f'audit_{key}.npz', compute)
      unsupported = float(found.pop('unsupported'))
      patches = audit.Patches(**found)
      row = {'file': source.names[index], 'network': name, **audit.film_row(patches)}
      row['unsupported'] = None if np.isnan(unsupported) else unsupported
      rows.append(row)
      here[name] = patches
      if patches.kept.any():
        curves[name].append(patches.curves[patches.kept].mean(0))
    patients.append(source.identities[index])
    small = maps.thumbnail(upscaled.hr)
    films.append(maps.AuditedFilm(index, source.names[index], small, film.shape, here))
    films = sorted(films, key=lambda each: -each.flagged)[: maps.MOST]
  write_text(folder / AUDIT_CSV, to_csv(rows))
  image_files.write(folder / AUDIT_PNG, maps.sheet(films), own_files.NOTE)
  summary = {name: _summarize(rows, name, patients) for name in networks}
  means = {name: np.mean(found, axis=0) for name, found in curves.items() if found}
  return Audit(rows, summary, means, films)


class _Upscaled:
  """A film, and what networks make of its low resolution, each computed once."""

  def __init__(self, film: np.ndarray, scale: int):
    self.hr = study.gray(film)
    self._lr = degradation.downscale(film, scale)[None]
    self._known: dict[str, np.ndarray] = {}

  def __call__(self, network: Network) -> np.ndarray:
    if network.digest not in self._known:
      self._known[network.digest] = study.gray(network.enlarge(self._lr))[0]
    return self._known[network.digest]


def _summarize(rows: list[dict[str, Any]], name: str, patients: list[str]) -> dict[str, Any]:
  mine = [row for row in rows if row['network'] == name]
  measured = [(row, who) for row, who in zip(mine, patients, strict=True) if row['patches']]
  if not measured:
    return {'films': 0}
  found: dict[str, Any] = {'films': len(measured)}
  for key in [k for k in measured[0][0] if k not in ('file', 'network', 'patches')]:
    values = [row[key] for row, _ in measured if row[key] is not None]
    found[key] = float(np.mean(values)) if values else None
  flagged = np.array([row['flagged'] for row, _ in measured])
  found['flagged_interval'] = stratified.interval(flagged, [who for _, who in measured])
  return found


def study_lesions(
  networks: Mapping[str, Network], source: Source, folder: Path, scale: int
) -> list[dict[str, Any]]:
  """Run the lesion study on the films and on phantoms, under each condition; write `lesions.csv`.

  Returns:
    The rows of `study.summarize`, with 'films' ('films' or 'phantoms'), 'condition' and the number
    of patients 'n'. Groups of fewer than `study.SMALLEST` films with places for lesions are left
    out.
  """
  observed = {study.HR: Network(lambda lr: lr, study.HR), **networks}
  films = (
    (film, Path(source.names[i]).name, source.identities[i])
    for i, film in _films(source, scale, 'lesions')
  )
  groups = {
    'films': films,
    'phantoms': _progress(study.phantoms(), study.PHANTOMS, 'phantoms'),
  }
  rows = []
  for group, members in groups.items():
    found: dict[str, dict[str, list[study.Outputs]]] = {c: {} for c in study.CONDITIONS}
    patients: list[str] = []
    for film, name, patient in members:
      outputs = dict(_observe(observed, film, name, folder, scale))
      if outputs:
        patients.append(patient)
      for (condition, network), one in outputs.items():
        found[condition].setdefault(network, []).append(one)
    if len(set(patients)) < study.SMALLEST:
      continue
    for condition, outputs in found.items():
      known = {'films': group, 'condition': condition, 'n': len(set(patients))}
      rows += [known | row for row in study.summarize(outputs, patients)]
  write_text(folder / LESIONS_CSV, to_csv([_flat(row) for row in rows]))
  return rows


def _observe(
  networks: Mapping[str, Network], film: np.ndarray, name: str, folder: Path, scale: int
) -> Iterator[tuple[tuple[str, str], study.Outputs]]:
  """Yield what observers see of a film, by condition and network; nothing if it has no places."""
  subject: list[study.Subject | None] = []  # made once, and only if something is not kept yet

  def compute(network: str, condition: str) -> dict[str, Any]:
    if not subject:
      subject.append(study.subject(film, name, scale))
    if subject[0] is None:
      return {'kept': np.zeros((0, 0))}
    enlarge = None if network == study.HR else networks[network].enlarge
    return study.observe(subject[0], enlarge, condition, scale)._asdict()

  for condition in study.CONDITIONS:
    for network, (_, digest) in networks.items():
      key = _digest(film, name, digest, condition, scale)
      path = folder / FOLDER / f'lesions_{key}.npz'
      found = _keep(path, lambda n=network, c=condition: compute(n, c))
      if not found['kept'].size:
        return
      yield (condition, network), study.Outputs(**found)


def read_films(
  networks: Mapping[str, Network],
  source: Source,
  folder: Path,
  scale: int,
  reader: readers.Reader,
  labels: Mapping[str, set[str]],
) -> tuple[list[dict[str, Any]], dict[str, tuple[int, int]]]:
  """Let a reader classify the films with known findings, and write `readers.csv`.

  Args:
    networks: by their names; bicubic is one of them.
    source: the films.
    folder: an existing folder.
    scale: the factor.
    reader: the reader.
    labels: the findings by file name.

  Returns:
    The rows of `readers.compare`, and the findings that `readers.left_out` returns.
  """
  scores: dict[str, list[np.ndarray]] = {name: [] for name in (study.HR, *networks)}
  known, patients, low_sides = [], [], []
  for index, film in _films(source, scale, 'reader'):
    name = Path(source.names[index]).name
    if name not in labels:
      continue
    upscaled = _Upscaled(film, scale)
    for network in scores:

      def compute(
        network: str = network, upscaled: _Upscaled = upscaled, name: str = name
      ) -> dict[str, Any]:
        image = upscaled.hr if network == study.HR else upscaled(networks[network])
        try:
          return {'values': reader(image)}
        except UserError as error:
          raise UserError(f'{name}, {network}: {error}') from error

      digest = study.HR if network == study.HR else networks[network].digest
      key = _digest(film, reader.digest, digest, scale)
      scores[network].append(_keep(folder / FOLDER / f'reader_{key}.npz', compute)['values'])
    known.append(labels[name])
    patients.append(source.identities[index])
    low_sides.append(min(film.shape[:2]) // scale)
  if not known:
    raise UserError('--reader: no image has known findings; give --tables, or records as --data')
  stacked = {name: np.stack(found) for name, found in scores.items()}
  rows = readers.compare(stacked, known, patients, reader, low_side=int(np.median(low_sides)))
  write_text(folder / READERS_CSV, to_csv([_flat(row) for row in rows]))
  return rows, readers.left_out(known, reader)


def _flat(row: dict[str, Any]) -> dict[str, Any]:
  """Returns a row with the ends of intervals in cells of their own."""
  flat = {}
  for name, value in row.items():
    if name.endswith('_interval'):
      flat[f'{name}_low'], flat[f'{name}_high'] = value
    else:
      flat[name] = value
  return flat


def _films(source: Source, scale: int, name: str) -> Iterator[tuple[int, np.ndarray]]:
  """Yield the films that can be read, cut to a multiple of the scale."""
  for index in _progress(range(len(source)), len(source), name):
    try:
      yield index, degradation.cut(source[index], scale)
    except ImageError:  # the evaluation lists it
      continue


def _progress(items: Iterable, total: int, name: str) -> Any:
  return tqdm(items, total=total, desc=name, unit='film', disable=not sys.stderr.isatty())


def _digest(film: np.ndarray, *described: Any) -> str:
  found = hashlib.sha256(repr((VERSION, film.shape, film.dtype.str, described)).encode())
  found.update(film.tobytes())
  return found.hexdigest()[:24]


def _keep(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """Read arrays that were computed before; compute and write them if that fails."""
  try:
    with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
      return dict(arrays)
  except Exception:  # `zipfile` raises many kinds
    found = {name: np.asarray(value) for name, value in compute().items()}
  make_folder(path.parent)
  with atomic(path) as temporary, temporary.open('wb') as file:
    np.savez_compressed(file, allow_pickle=False, **found)
  return found
