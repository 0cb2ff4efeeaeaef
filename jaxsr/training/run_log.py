"""The output of a run: progress lines, TensorBoard and metrics.csv."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from jaxsr.checkpoint import run_dir
from jaxsr.config import Config, compatibility, to_dict
from jaxsr.data import registration, sources
from jaxsr.errors import argument, brief
from jaxsr.evaluation import plots
from jaxsr.evaluation.evaluator import INFINITE, Figures, split_exact, summarize
from jaxsr.models import count_parameters
from jaxsr.training.spikes import SpikeMonitor
from jaxsr.training.state import State
from jaxsr.training.tensorboard import Summary

ROW = ('psnr', 'ssim', 'bicubic_psnr', 'bicubic_ssim', 'psnr_centre', 'bicubic_psnr_centre')
CURVES = (*ROW, 'psnr_gain', 'psnr_gain_centre', 'psnr_pooled', 'psnr_uncropped', 'ms_ssim')
CURVES += ('high_frequency', 'consistency', 'feature_distance')
CURVES += tuple(f'bicubic_{name}' for name in CURVES[-4:])


def report_sources(train_source: sources.Source, val_source: sources.Source, scale: int) -> None:
  """Print which images were left out or cut, and which are in both training and validation."""
  for name, source in (('training', train_source), ('validation', val_source)):
    if source.rejected:
      total = len(source.rejected) + len(source)
      print(f'left out of {name}: {len(source.rejected)} of {total} images', file=sys.stderr)
      for error in source.rejected[:10]:
        print(f'  {error}', file=sys.stderr)
    if uneven := sources.uneven(source, scale):
      print(f'{len(uneven)} images of {name} are cut to a multiple of {scale}: {brief(uneven)}')
    if sources.is_paired(source):
      print(f'{name}: {registration.describe(source)}')
  if shared := sources.overlap(train_source, val_source):
    print(
      f'warning: {shared} of {len(val_source)} validation images, or other images of the same '
      'patients, are also trained on; validation metrics will be too good',
      file=sys.stderr,
    )


def introduce(
  config: Config, state: State, train: sources.Source, val: sources.Source, mesh: Mesh
) -> None:
  """Print the network, the images and the devices of the run."""
  parameters = count_parameters(state.ema)
  text = f'{config.model.name}: {parameters:,} parameters; {len(train)} images to train on, '
  text += f'{len(val)} to validate; {mesh.size} x {mesh.devices.flat[0].device_kind}'
  print(text + (f'; resumed at step {state.step}' if state.step else ''), flush=True)


class Log:
  """Writes the output on the primary host; other hosts keep the table, to decide equally.

  `before` is called before files are written, and raises if the folder is no longer this run's.
  """

  def __init__(
    self,
    config: Config,
    folder: Path,
    *,
    start: int,
    primary: bool,
    spikes: SpikeMonitor,
    before: Callable[[], None],
  ):
    self._before = before
    self.table = run_dir.MetricsTable(folder, step=start)
    self.spikes = spikes
    self._skipped = run_dir.SkippedTable(folder, step=start)
    self._folder, self._steps, self._batch_size = folder, config.steps, config.batch_size
    self._primary = primary
    self._start = self._step = start
    self._since = time.perf_counter()
    self._training = 0.0  # seconds since the start, without validation
    self._losses: list[float] = []
    self._terms: Sequence[str] = ()
    self._rate = 0.0
    self._told_exact = False
    quiet = not (primary and sys.stderr.isatty())
    self._bar = tqdm(
      initial=start, total=config.steps, unit='step', disable=quiet, dynamic_ncols=True
    )
    self._summary = Summary(folder, step=start) if primary else None
    if self._summary:
      self._summary.begin(compatibility.flatten(to_dict(config)), 'val/psnr', 'val/psnr_gain')

  def tick(self) -> None:
    """Advance the progress bar."""
    self._bar.update()

  def skipped(self, step: int, names: Sequence[str]) -> None:
    """Write the images of a step that was skipped."""
    if self._primary:
      self._before()
      self._skipped.add(step, names)

  def scalars(self, step: int, rows: Sequence[dict[str, np.ndarray]], *, waited: float) -> str:
    """Write the means of the scalars over the steps since the last call.

    Args:
      step: Steps taken so far.
      rows: The scalars of each step since the last call.
      waited: Seconds since then that devices waited for batches, at most.

    Returns:
      A warning if a loss spike begins, else ''.
    """
    self._before()
    now = time.perf_counter()
    seconds, self._since = now - self._since, now
    self._rate = (step - self._step) * self._batch_size / seconds
    self._training, self._step = self._training + seconds, step
    losses = [float(row['loss']) for row in rows if 'loss' in row]
    self._losses += [loss for loss in losses if np.isfinite(loss)]
    values = {name: _mean(rows, name) for name in dict.fromkeys(n for row in rows for n in row)}
    values |= {name: float(rows[-1][name]) for name in ('skipped', 'skipped_in_row')}
    values |= {'images_per_second': self._rate, 'waiting_for_data': waited / seconds}
    if self._summary:
      tagged = {n if '/' in n else f'train/{n}': value for n, value in values.items()}
      self._summary.scalars(step, tagged)
    text = (
      f'loss {values.get("loss", np.nan):.3g}  crop psnr {values["psnr"]:.2f}  '
      f'{self._rate:.0f} images/s'
    )
    if 'discriminator/accuracy' in values:
      text += f'  D {values["discriminator/accuracy"]:.0%}'
    if values['skipped']:
      text += f'  skipped {values["skipped"]:.0f}'
    self._bar.set_postfix_str(text, refresh=False)
    self._bar.update()
    if self._bar.disable and self._primary:
      left = self._training / (step - self._start) * (self._steps - step)
      print(f'step {step}/{self._steps}  {text}  {tqdm.format_interval(left)} left', flush=True)
    return self.spikes.crops(values['psnr'])

  def validation(
    self, step: int, rows: Sequence[Figures], strips: Sequence[plots.Example], *, seconds: float
  ) -> str:
    """Write the results of a validation: a row of metrics.csv, curves and image strips.

    Args:
      step: Steps taken so far.
      rows: Figures per image.
      strips: Images to show.
      seconds: Duration, which does not count as training time.

    Returns:
      A warning if a loss spike begins, else ''.
    """
    self._before()
    self._since += seconds
    compared, exact = split_exact(rows)
    if exact and not self._told_exact:
      self._told_exact = True
      way = 'they are left out' if compared else f'{INFINITE:.0f} dB are shown for it'
      self.warn(step, f'{exact}; {way}')
    rows = compared or rows
    summary = summarize(rows)
    loss = float(np.mean(self._losses)) if self._losses else float('nan')
    self._losses.clear()
    row = {'step': step} | {name: round(summary[name], 6) for name in ROW}
    row |= {'loss': f'{loss:.6g}', 'images_per_second': round(self._rate, 2)}
    warning = self.spikes.validation(summary['psnr'], [float(r['psnr']) for r in self.table.rows])
    self.table.add(row, write=self._primary)
    if not self._summary:
      return warning
    curves = {name: summary[name] for name in CURVES if summary.get(name) is not None}
    self._summary.scalars(step, {f'val/{name}': value for name, value in curves.items()})
    for example in strips:
      self._summary.image(step, f'val/{example.title}', plots.strip(example))
    text = (
      f'step {step}: PSNR {summary["psnr"]:.3f} dB (bicubic {summary["bicubic_psnr"]:.3f}, '
      f'{summary["psnr_gain"]:+.3f}), center {summary["psnr_centre"]:.3f} '
      f'({summary["psnr_gain_centre"]:+.3f}), SSIM {summary["ssim"]:.4f} '
      f'({summary["bicubic_ssim"]:.4f}), {len(rows)} images'
    )
    if self._bar.disable:
      print(text, flush=True)
    else:
      self._bar.write(text)
    return warning

  def stage(self, step: int, terms: Sequence[str]) -> None:
    """Print the active terms when they change."""
    if self._terms and terms != self._terms:
      self.spikes.reset()
      if self._primary:
        self._bar.write(f'step {step}: loss terms are now {", ".join(terms)}')
    self._terms = terms

  def warn(self, step: int, text: str) -> None:
    """Print a warning; the run continues."""
    if self._primary:
      print(f'warning, step {step}: {text}', file=sys.stderr, flush=True)

  def finish(self) -> None:
    """Print the result of the run and what to do next."""
    if not self._summary:
      return
    self._summary.end()
    last = self.table.last()
    psnr = float(last['psnr'])
    gain = psnr - float(last['bicubic_psnr'])
    verdict = f'{gain:+.2f} dB over bicubic' if gain > 0 else f'{gain:+.2f} dB: WORSE than bicubic'
    if float(last['bicubic_psnr']) >= INFINITE:
      verdict = 'not compared with bicubic, which gives every validation image exactly'
    folder = argument(self._folder)
    self._bar.close()
    print(f'finished at step {last["step"]}: {psnr:.2f} dB, {verdict}')
    print(f'  curves:   tensorboard --logdir {folder}')
    print(f'  evaluate: jaxsr evaluate --checkpoint {folder} --data DIR --output DIR')
    print(f'  use:      jaxsr upscale IN.png --checkpoint {folder} --output OUT.png', flush=True)

  def close(self) -> None:
    """Close the bar and the event files."""
    self._bar.close()
    if self._summary:
      self._summary.close()


def _mean(rows: Sequence[dict[str, np.ndarray]], name: str) -> float:
  """Compute the mean of a scalar over the steps that have it, leaving out values not finite."""
  found = [float(row[name]) for row in rows if name in row]
  finite = [value for value in found if np.isfinite(value)]
  return float(np.mean(finite or found))
