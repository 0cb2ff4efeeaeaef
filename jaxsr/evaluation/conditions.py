"""Measure networks under the named conditions of acquisition, beside bicubic and a denoiser.

Each image is reduced under each condition by `acquisition.film.acquire`, with random numbers that
depend on the name of the file and the condition only. Figures are kept per image in
`conditions_per_image.csv`, each with a digest of everything that it depends on, so that an
interrupted evaluation continues, and only what changed is measured again. So are rows that do not
match their own digest, the last column.
"""

import csv
import functools
import hashlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import __version__, metrics, runtime
from jaxsr.data import acquisition, degradation, quality
from jaxsr.data.acquisition.film import acquire
from jaxsr.data.sources import Source
from jaxsr.errors import UserError, nearest
from jaxsr.evaluation.evaluator import READERS
from jaxsr.evaluation.figures import FIGURES, Figure, of_image
from jaxsr.evaluation.protocol import Pair, of_given, shrink
from jaxsr.files import digest_arrays, digest_json, to_csv, write_text
from jaxsr.inference import package
from jaxsr.inference.model import Model
from jaxsr.inference.upscale import make_upscale

PER_IMAGE = 'conditions_per_image.csv'
BICUBIC, DENOISER = 'bicubic', 'nl-means + bicubic'
_SAVE_EVERY = 30.0  # seconds

Row = dict[str, Any]
Table = dict[str, dict[str, Row]]  # condition, method, figures
Progress = Callable[[Iterable, int], Iterable]


class Method(NamedTuple):
  """A way to upscale; `digest` identifies it, and `upscale` returns [sh, sw, c] in [0, 1]."""

  name: str
  digest: str
  upscale: Callable[[Pair], np.ndarray]


def choose(wanted: str | Sequence[str]) -> list[str]:
  """Returns the names of conditions: 'all', or names separated by commas; raises UserError."""
  names = wanted.split(',') if isinstance(wanted, str) else list(wanted)
  names = list(dict.fromkeys(name.strip() for name in names))
  if names == ['all']:
    return [*acquisition.CONDITIONS]
  for name in names:
    if name not in acquisition.CONDITIONS:
      raise UserError(f'condition {name!r} is unknown: {nearest(name, acquisition.CONDITIONS)}')
  return names


def methods(models: Sequence[Model], *, ensemble: bool = False) -> list[Method]:
  """Returns bicubic, the denoiser with bicubic if scikit-image is installed, and the models.

  Raises:
    UserError: two models have the same name, or their scales or channels differ.
  """
  found = [Method(BICUBIC, BICUBIC, lambda pair: pair.bicubic)]
  if denoise := _denoiser():
    found.append(denoise)
  for model in models:
    if (model.scale, model.channels) != (models[0].scale, models[0].channels):
      raise UserError(
        f'{model.name} is for x{model.scale} and {model.channels} channels, {models[0].name} for '
        f'x{models[0].scale} and {models[0].channels}: measure them separately'
      )
    if model.name == BICUBIC:
      continue
    if model.name in [method.name for method in found]:
      raise UserError(f'two checkpoints are called {model.name}: rename the folder of one')
    found.append(_network(model, ensemble))
  return found


def _network(model: Model, ensemble: bool) -> Method:
  enlarge = make_upscale(model.network, ensemble=ensemble, devices=jax.local_devices())
  digest = digest_arrays([package.to_tensors(model.variables)], (model.network, ensemble))

  def upscale(pair: Pair) -> np.ndarray:
    sr = np.asarray(enlarge(model.variables, pair.lr[None], np.float32(pair.levels)))[0]
    if not np.isfinite(sr).all():
      raise UserError(f'{model.name} gives an output with NaN or infinite values')
    return sr

  return Method(model.name, digest, upscale)


def _denoiser() -> Method | None:
  """Returns non-local means (Buades et al., 2005) with bicubic; None without scikit-image.

  Strength and patches are those that scikit-image recommends for a known noise level, which is
  estimated from the image.
  """
  try:
    from skimage.restoration import denoise_nl_means
  except ImportError:
    return None

  def upscale(pair: Pair) -> np.ndarray:
    planes = []
    for plane in np.moveaxis(pair.lr, 2, 0):
      sigma = quality.noise(plane)
      options: dict[str, Any] = {'patch_size': 5, 'patch_distance': 6, 'fast_mode': True}
      kept = denoise_nl_means(plane, h=0.8 * sigma, sigma=sigma, **options) if sigma else plane
      planes.append(np.clip(kept, 0, 1))
    kind = np.uint8 if pair.levels == 255 else np.uint16
    lr = np.rint(np.stack(planes, axis=2) * pair.levels).astype(kind)
    return of_given(np.empty(pair.hr.shape, kind), lr).bicubic

  return Method(DENOISER, f'{DENOISER} {version("scikit-image")}', upscale)


def measure(
  measured: Sequence[Method],
  source: Source,
  names: Sequence[str],
  *,
  scale: int,
  images: Sequence[int],
  folder: Path | None,
  progress: Progress = lambda items, total: items,
) -> Table:
  """Measure methods on images under conditions.

  Args:
    measured: what `methods` returns.
    source: the high-resolution images.
    names: the conditions.
    scale: the factor of the reduction.
    images: the numbers of the images in the source.
    folder: keeps the figures per image, and is looked into for those of an earlier evaluation.
    progress: shows the progress of an iterable, given its length.

  Returns:
    For each condition and method, the means over images of the metrics `by_condition` of
    `evaluation.figures`, `n`, the gain over bicubic (`psnr_gain`, `psnr_gain_centre`), and
    `images_below_bicubic`.
  """
  kept = _Kept(folder)
  prepare = _Preparation(source, scale)
  figures = _figures(scale)

  def pending(task: tuple[int, str]) -> tuple[tuple[int, str], dict[str, Row], list[Any]]:
    """Returns the rows of a task that are known, and the methods that are not, with the pair.

    The denoiser, which takes long and is not JAX's, already runs here in the background.
    """
    index, condition = task
    keys = {m.name: prepare.key(index, condition, m.digest) for m in measured}
    known = {name: kept.rows[key] for name, key in keys.items() if key in kept.rows}
    missing = [m for m in measured if m.name not in known]
    if not missing:
      return task, known, []
    pair = prepare.pair(index, condition)
    sr = {m.name: m.upscale(pair) for m in missing if m.name == DENOISER}
    return task, known, [(m, keys[m.name], pair, sr.get(m.name)) for m in missing]

  tasks = [(index, condition) for index in images for condition in names]
  rows: list[Row] = []
  try:
    found = runtime.prefetch_map(pending, tasks, READERS)
    for (index, condition), known, missing in progress(found, len(tasks)):
      for method, key, pair, sr in missing:
        row = {'condition': condition, 'method': method.name, 'file': source.names[index]}
        row |= figures(method.upscale(pair) if sr is None else sr, pair) | {'digest': key}
        known[method.name] = kept.add(row | {'sum': digest_json(row)})
      rows += [known[method.name] for method in measured]
  except BaseException:
    kept.write()
    raise
  kept.replace(rows)
  return _summarize(rows, [method.name for method in measured], names)


class _Preparation:
  """Reads images and reduces them; the images of consecutive tasks are read once."""

  def __init__(self, source: Source, scale: int):
    self._source, self._scale = source, scale
    self._lock = threading.Lock()
    self._read = functools.lru_cache(maxsize=2)(self._read_image)

  def _read_image(self, index: int) -> tuple[np.ndarray, str]:
    hr = degradation.cut(self._source[index], self._scale)
    return hr, hashlib.sha256(repr((hr.shape, hr.dtype.str)).encode() + hr.tobytes()).hexdigest()

  def _image(self, index: int) -> tuple[np.ndarray, str]:
    with self._lock:
      return self._read(index)

  def key(self, index: int, condition: str, method: str) -> str:
    """Returns a digest of everything that the metrics of a method depend on."""
    how = (acquisition.VERSION, condition, acquisition.CONDITIONS[condition], __version__)
    film = (self._source.names[index], self._image(index)[1], self._scale)
    text = repr((*how, *film, method))
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  def pair(self, index: int, condition: str) -> Pair:
    """Returns the pair of an image under a condition."""
    hr = self._image(index)[0]
    rng = acquisition.generator(Path(self._source.names[index]).name, condition)
    lr = acquire(hr, acquisition.CONDITIONS[condition], rng, scale=self._scale)
    return of_given(hr, lr)


class _Kept:
  """The figures per image in a file, written now and then."""

  def __init__(self, folder: Path | None):
    self._path = None if folder is None else folder / PER_IMAGE
    self.rows = {row['digest']: row for row in _read(self._path)}
    self._written = time.monotonic()

  def add(self, row: Row) -> Row:
    """Keep a row, and write the file if that was not done for a while; returns the row."""
    self.rows[row['digest']] = row
    if time.monotonic() - self._written > _SAVE_EVERY:
      self.write()
    return row

  def replace(self, rows: Sequence[Row]) -> None:
    """Keep these rows only, and write the file."""
    self.rows = {row['digest']: row for row in rows}
    self.write()

  def write(self) -> None:
    """Write the file."""
    if self._path is not None and self.rows:
      write_text(self._path, to_csv([*self.rows.values()]))
    self._written = time.monotonic()


def _read(path: Path | None) -> Iterator[Row]:
  """Yield the rows of a file that are as written; none if it is absent or of another kind."""
  if path is None or not path.is_file():
    return
  try:
    with path.open(newline='', encoding='utf-8') as file:
      for row in csv.DictReader(file):
        figures = {figure.name: float(row[figure.name]) for figure in _chosen()}
        found = {**row, **figures, 'digest': row['digest']}
        written = found.pop('sum', None)
        if written == digest_json(found):
          yield found | {'sum': written}
  except (OSError, ValueError, KeyError, TypeError):
    return


def _chosen() -> list[Figure]:
  """Returns the metrics that are measured under conditions."""
  return [figure for figure in FIGURES.values() if figure.by_condition]


def _figures(scale: int) -> Callable[[np.ndarray, Pair], Row]:
  """Returns the function that measures an upscaled image."""
  wanted = {name for figure in _chosen() for name in figure.means}

  @jax.jit  # what is not returned is not computed
  def means(sr: jax.Array, hr: jax.Array) -> dict[str, jax.Array]:
    found = metrics.measure(sr, hr, scale=scale)
    return {name: value[0] for name, value in found.items() if name in wanted}

  def figures(sr: np.ndarray, pair: Pair) -> Row:
    images = jnp.asarray(sr[None]), jnp.asarray(pair.hr[None])
    found = {name: float(value) for name, value in means(*images).items()}
    again = shrink('xray', sr, scale, pair.levels)
    found['mse_consistency'] = float(np.square(again - pair.lr).mean())
    return of_image(found, _chosen())

  return figures


def _summarize(rows: Sequence[Row], measured: Sequence[str], names: Sequence[str]) -> Table:
  chosen = [figure.name for figure in _chosen()]
  values: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
  for row in rows:
    values[row['condition'], row['method']].append([row[name] for name in chosen])
  table: Table = {condition: {} for condition in names}
  for condition in names:
    baseline = np.array(values[condition, BICUBIC])
    for method in measured:
      found = np.array(values[condition, method])
      gain = dict(zip(chosen, (found - baseline).T, strict=True))
      table[condition][method] = {
        'n': len(found),
        **dict(zip(chosen, found.mean(axis=0).tolist(), strict=True)),
        'psnr_gain': float(gain['psnr'].mean()),
        'psnr_gain_centre': float(gain['psnr_centre'].mean()),
        'images_below_bicubic': int((gain['psnr'] < 0).sum()),
      }
  return table
