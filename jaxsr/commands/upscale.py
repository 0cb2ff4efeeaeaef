"""`jaxsr upscale`: enlarge image files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxsr import __version__, runtime
from jaxsr.commands import report, upscale_files
from jaxsr.commands.options import Upscale
from jaxsr.commands.upscale_files import Job
from jaxsr.data import dicom_out, image_files, shard
from jaxsr.data.decoded import ImageInfo, Method
from jaxsr.errors import ImageError, UserError, brief, count
from jaxsr.files import make_folder
from jaxsr.inference import provenance
from jaxsr.inference.input_range import check_input
from jaxsr.inference.model import Model, load
from jaxsr.inference.provenance import Provenance

_MOST_THREADS = 16


class Result(NamedTuple):
  """The outcome for one image: written unless it failed or existed already.

  `notes` are remarks that may hold for many images; the end of the batch shows each of them once,
  with the number of images.
  """

  job: Job
  error: ImageError | None = None
  existed: bool = False
  notes: tuple[str, ...] = ()


def run(options: Upscale) -> int:
  """Enlarge the images and write the results; return the exit code."""
  if options.tile < 1:
    raise UserError(f'--tile {options.tile} is less than 1')
  model = load(
    options.checkpoint,
    scale=options.scale,
    step=options.step,
    width=options.width,
    depth=options.depth,
  )
  jobs = upscale_files.jobs(options, f'x{model.scale}')
  if options.shard:
    part = shard.parse(options.shard)
    jobs = [job for job in jobs if part.holds(_name(job))]
  worker = _Worker(options, model)
  threads = min(max(2, runtime.cpu_count()), _MOST_THREADS)  # most of the time a PNG is compressed
  done = runtime.prefetch_map(worker, jobs, threads)
  return _report(list(report.progress(done, len(jobs), 'upscale')), options.output)


def _name(job: Job) -> str:
  """Returns the name of an image in its folder, which decides its shard."""
  below = job.target.relative_to(job.place)
  return str(below) if below.parts else job.target.name


class _Worker:
  """Makes the result of one image; threads call it at the same time."""

  def __init__(self, options: Upscale, model: Model):
    self.options, self.model = options, model
    self.enlarge = partial(model.upscale, ensemble=options.ensemble, tile=options.tile)
    self.made_by = provenance.of(model, ensemble=options.ensemble)
    if options.bits:  # results that were made with another number are made again
      self.made_by = self.made_by._replace(network=f'{self.made_by.network}, {options.bits} bits')

  def __call__(self, job: Job) -> Result:
    try:
      return self._make(job)
    except ImageError as error:
      return Result(job, error)

  def _make(self, job: Job) -> Result:
    """Enlarge one image and write the result; raises ImageError."""
    if job.problem:
      raise ImageError(job.source, job.problem)
    note = self.made_by._replace(source=_digest(job.source))
    if not self.options.overwrite and provenance.is_done(job.target, note):
      return Result(job, existed=True)
    image, info = image_files.load(job.source, self.model.channels, self.options.bits)
    check = dicom_out.check_target if job.as_dicom else image_files.check_target
    check(job.target, image)
    make_folder(job.target.parent)
    sr = self.enlarge(image, bits=8 * image.itemsize)
    self._write(job, sr, note, info)
    remark = check_input(self.model, image)
    return Result(job, notes=(remark,) if remark else ())

  def _write(self, job: Job, sr: np.ndarray, note: Provenance, info: ImageInfo) -> None:
    if not job.as_dicom:
      image_files.write(job.target, sr, str(note), info=info, scale=self.model.scale)
      return
    made_by = Method(note.method, str(note), __version__)
    dicom_out.write(job.target, sr, job.source, made_by, compress=self.options.compress)


def _report(results: Sequence[Result], output: Path | None) -> int:
  """Print what was written, the remarks and the images that failed; return the exit code."""
  failed = [result.error for result in results if result.error]
  existed = sum(result.existed for result in results)
  kept = f'; {existed} existed already' if existed else ''
  places = list(dict.fromkeys(str(result.job.place) for result in results))
  written = len(results) - len(failed) - existed
  total = count(len(results), 'image')
  print(f'wrote {written} of {total} to {output or brief(places, most=3)}{kept}')
  report.notes([result.notes for result in results])
  return report.failures(failed, 'failed')


def _digest(path: Path) -> str:
  """Returns the hash of a file; raises ImageError for pipes, broken links and unreadable files."""
  if not path.is_file():
    kind = 'a link to a file that does not exist' if path.is_symlink() else 'not a regular file'
    raise ImageError(path, f'is {kind}')
  try:
    return provenance.digest(path)
  except OSError as error:
    raise ImageError(path, f'cannot be read ({error.strerror})') from error
