"""`jaxsr upscale`: enlarge image files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxsr import runtime
from jaxsr.commands import report, upscale_files
from jaxsr.commands.enlarger import Enlarger
from jaxsr.commands.options import Upscale
from jaxsr.commands.upscale_files import Job
from jaxsr.commands.upscale_plan import Planner, check_options
from jaxsr.data import dicom, shard
from jaxsr.errors import ImageError, brief, concerns_one_file, count, is_disk_full, unwritten
from jaxsr.files import make_folder
from jaxsr.inference import provenance
from jaxsr.inference.agreement import Agreement

_MOST_THREADS = 16
_NOT_CHEST = 'not a chest radiograph by modality, body part or view; check the results'


class Result(NamedTuple):
  """The outcome for one image: written unless it failed or existed already.

  `notes` are remarks that may hold for many images; the end of the batch shows each of them once,
  with the number of images.
  """

  job: Job
  error: ImageError | None = None
  existed: bool = False
  notes: tuple[str, ...] = ()
  agreement: Agreement | None = None


def run(options: Upscale) -> int:
  """Enlarge the images and write the results; returns the exit code."""
  check_options(options)
  planner = Planner(options)
  worker = _Worker(options, planner)
  jobs = upscale_files.jobs(options, planner.label)
  if options.shard:
    part = shard.parse(options.shard)
    jobs = [job for job in jobs if part.holds(_name(job))]
  threads = min(max(2, runtime.cpu_count()), _MOST_THREADS)  # most of the time a PNG is compressed
  done = runtime.prefetch_map(worker, jobs, threads)
  try:
    results = list(report.progress(done, len(jobs), 'upscale'))
  except Exception as error:
    if not is_disk_full(error):
      raise
    made = len(worker.made)
    raise report.unfinished(error, made, len(jobs), 'run the command again') from error
  return _report(results, options.output)


def _name(job: Job) -> str:
  """Returns the name of an image in its folder, which decides its shard."""
  below = job.target.relative_to(job.place)
  return str(below) if below.parts else job.target.name


class _Worker:
  """Makes the result of one image; threads call it at the same time."""

  def __init__(self, options: Upscale, planner: Planner):
    self.options, self.planner = options, planner
    self.enlarger = Enlarger(options, planner)
    self.made: list[Path] = []  # also those that existed

  def __call__(self, job: Job) -> Result:
    try:
      found = self._make(job)
      self.made.append(job.target)
      return found
    except ImageError as error:
      return Result(job, error)
    except OSError as error:
      if not concerns_one_file(error):
        raise
      return Result(job, unwritten(job.source, job.target, error))

  def _make(self, job: Job) -> Result:
    """Enlarge one image and write the result; raises ImageError."""
    if job.problem:
      raise ImageError(job.source, job.problem)
    digest = provenance.digest_image(job.source)
    plan = self.planner.plan(job.source)
    note = plan.made_by._replace(source=digest)
    if not self.options.overwrite and self.enlarger.is_done(job, plan, note):
      return Result(job, existed=True)
    make_folder(job.target.parent)
    remarks, agreement = self.enlarger.write(job, plan, note)
    if not dicom.may_be_chest(job.source):
      remarks = (*remarks, _NOT_CHEST)
    return Result(job, notes=remarks, agreement=agreement)


def _report(results: Sequence[Result], output: Path | None) -> int:
  """Print the number of results, the remarks and the images that failed; returns the exit code."""
  failed = [result.error for result in results if result.error]
  existed = sum(result.existed for result in results)
  kept = f'; {existed} existed already' if existed else ''
  places = list(dict.fromkeys(str(result.job.place) for result in results))
  written = len(results) - len(failed) - existed
  total = count(len(results), 'image')
  print(f'wrote {written} of {total} to {output or brief(places, most=3)}{kept}')
  report.agreement([(result.job.source, result.agreement) for result in results])
  report.notes([result.notes for result in results])
  return report.failures(failed, 'failed')
