"""The console command `jaxsr`. Exit codes: 0 all done, 1 some images failed, 2 not understood."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from PIL import Image
from tqdm import tqdm

from jaxsr import __version__, evaluate, pictures, predictor
from jaxsr.data import images, sources
from jaxsr.data.images import ImageError
from jaxsr.errors import UserError, brief
from jaxsr.files import make_folder

SOME_FAILED, NOT_UNDERSTOOD = 1, 2


@dataclass(frozen=True)
class Evaluate:
  """Measure a network on whole images, bicubic beside it."""

  checkpoint: str
  """The folder of a run, or 'bicubic', or 'lanczos'."""
  data: Path
  """A folder of high-resolution images, read recursively, or one image."""
  output: Path
  """A folder for per_image.csv, summary.json and contact_sheet.png."""
  protocol: Literal['xray', 'luma'] = 'xray'
  """How images become pairs: chest X-rays, or the luma of natural images."""
  scale: int | None = None
  """The scale of an interpolation (default 4); a run knows its own."""
  step: str = 'latest'
  """The checkpoint of the run: 'latest', 'best' or a step."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Measure, write and print; return the exit code."""
    model = predictor.load(self.checkpoint, scale=self.scale, step=self.step)
    if self.protocol == 'luma' and model.channels != 1:
      raise UserError(f'--protocol luma needs a network of 1 channel, not {model.channels}')
    channels = 3 if self.protocol == 'luma' else model.channels
    source = sources.Folder(self.data, channels=channels)
    make_folder(self.output)
    if uneven := sources.uneven(source, model.scale):
      print(
        f'{len(uneven)} images are cut to a multiple of {model.scale}: {brief(uneven)}',
        file=sys.stderr,
      )
    evaluator = evaluate.Evaluator(model.network, source, scale=model.scale, protocol=self.protocol)
    rows, indices, failed = self._measure(model, evaluator, source)
    summary = evaluate.summarise(rows) | {
      'failed': [str(error) for error in failed],
      'network': model.name,
      'parameters': model.parameters,
      'scale': model.scale,
      'protocol': self.protocol,
      'checkpoint_step': model.step,
      'version': __version__,
    }
    examples = [
      evaluator.measure(model.variables, indices[i])[1]._replace(
        title=evaluate.caption(rank, rows[i])
      )
      for rank, i in evaluate.ranks(rows).items()
    ]
    evaluate.write(self.output, rows, summary, pictures.contact_sheet(examples))
    _print_summary(summary)
    return _report(failed, 'left out')

  def _measure(
    self, model: predictor.Predictor, evaluator: evaluate.Evaluator, source: sources.Folder
  ) -> tuple[list[evaluate.Row], list[int], list[ImageError]]:
    rows, indices, failed = [], [], list(source.rejected)
    results = evaluator.measure_all(model.variables)
    for i, result in enumerate(_progress(results, len(source), 'evaluate')):
      if isinstance(result, ImageError):
        failed.append(result)
      else:
        rows.append(result[0])
        indices.append(i)
    if not rows:
      raise UserError(f'{self.data}: no image can be measured; {failed[0]}')
    return rows, indices, failed


@dataclass(frozen=True)
class Upscale:
  """Enlarge images; names, folders, bit depth and value range stay."""

  input: Annotated[Path, tyro.conf.Positional]
  """An image, or a folder that is read recursively."""
  checkpoint: str
  """The folder of a run, or 'bicubic', or 'lanczos'."""
  output: Path
  """The file to write for one image (or a folder), the folder for a folder."""
  scale: int | None = None
  """The scale of an interpolation (default 4); a run knows its own."""
  step: str = 'latest'
  """The checkpoint of the run: 'latest', 'best' or a step."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Enlarge and write; return the exit code."""
    paths = images.find(self.input)
    self._check_output()
    targets = [self._target(path) for path in paths]
    model = predictor.load(self.checkpoint, scale=self.scale, step=self.step)
    enlarge = predictor.make_upscale(model)
    failed = []
    for path, target in _progress(zip(paths, targets, strict=True), len(paths), 'upscale'):
      try:
        image = images.read(path, model.channels)
        images.check_target(target, image)
        make_folder(target.parent)
        images.write(target, enlarge(image))
      except ImageError as error:
        failed.append(error)
    print(f'wrote {len(paths) - len(failed)} of {len(paths)} images to {self.output}')
    return _report(failed, 'failed')

  def _target(self, path: Path) -> Path:
    if self.input.is_dir():
      return self.output / path.relative_to(self.input)
    if path.suffix.lower() not in images.SUFFIXES:
      raise UserError(f'{path}: ends in none of {", ".join(images.SUFFIXES)}')
    is_file = self.output.suffix.lower() in images.SUFFIXES and not self.output.is_dir()
    return self.output if is_file else self.output / path.name

  def _check_output(self) -> None:
    """Keep originals from being overwritten, and results from being taken for originals."""
    source, output = self.input.resolve(), self.output.resolve()
    inside = output.is_relative_to(source) or source.is_relative_to(output)
    overwrites = self.input.is_file() and self._target(self.input).resolve() == source
    if overwrites or (self.input.is_dir() and inside):
      raise UserError(f'--output {self.output}: could overwrite {self.input}; choose another place')
    suffix = self.output.suffix.lower()
    is_image = suffix in Image.registered_extensions()
    if self.input.is_file() and is_image and suffix not in images.SUFFIXES:
      raise UserError(f'--output {self.output}: write one of {", ".join(images.SUFFIXES)}')


@dataclass(frozen=True)
class Phantom:
  """Write procedural chest radiographs, for tests and demonstrations."""

  output: Path
  """The folder to write to."""
  count: int = 8
  """How many."""
  seed: int = 0
  """Which series."""
  start: int = 0
  """The number of the first one."""
  size: int = 1024
  """Pixels of a side, a multiple of 8."""
  bits: Literal[8, 16] = 8
  """Bits a pixel."""
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Draw and write; return the exit code."""
    if self.count < 1:
      raise UserError(f'--count {self.count} is less than 1')
    source = sources.Phantoms(
      seed=self.seed, start=self.start, count=self.count, size=self.size, bits=self.bits
    )
    make_folder(self.output)
    for i, name in enumerate(_progress(source.names, len(source), 'phantom')):
      images.write(self.output / name, source[i])
    return 0


Command = (
  Annotated[Evaluate, tyro.conf.subcommand('evaluate')]
  | Annotated[Upscale, tyro.conf.subcommand('upscale')]
  | Annotated[Phantom, tyro.conf.subcommand('phantom')]
)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parse the command line, run the command and exit."""
  command = tyro.cli(
    Command,  # type: ignore[arg-type]
    args=arguments,
    prog='jaxsr',
    description='Super-resolution of chest radiographs. For research, not for diagnosis.',
    config=(tyro.conf.OmitArgPrefixes,),
  )
  try:
    code = command.run()
  except UserError as error:
    if command.debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    code = NOT_UNDERSTOOD
  except OSError as error:
    if command.debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    code = SOME_FAILED
  except KeyboardInterrupt:
    code = 130
  sys.exit(code)


def _progress(items, total: int, name: str):
  return tqdm(items, total=total, desc=name, unit='image', disable=not sys.stderr.isatty())


def _report(failed: Sequence[ImageError], what: str) -> int:
  for error in failed:
    print(f'{what}: {error}', file=sys.stderr)
  if failed:
    print(f'{what}: {len(failed)} images', file=sys.stderr)
  return SOME_FAILED if failed else 0


def _print_summary(summary: evaluate.Row) -> None:
  step = '' if summary['checkpoint_step'] is None else f', step {summary["checkpoint_step"]}'
  print(
    f'{summary["network"]}{step}, x{summary["scale"]}, protocol {summary["protocol"]}, '
    f'{summary["n"]} images'
  )
  line = '{:10s} {:>9s} {:>9s} {:>8s}'.format
  print(line('', summary['network'][:9], 'bicubic', 'gain'))
  for label, name, digits in (
    ('PSNR', 'psnr', 3),
    ('SSIM', 'ssim', 4),
    ('  centre', 'psnr_centre', 3),
    ('  centre', 'ssim_centre', 4),
    ('  pooled', 'psnr_pooled', 3),
    ('  uncropped', 'psnr_uncropped', 3),
  ):
    ours, bicubic = summary[name], summary[f'bicubic_{name}']
    number = f'{{:.{digits}f}}'.format
    print(line(label, number(ours), number(bicubic), f'{ours - bicubic:+.{digits}f}'))
  if summary['images_below_bicubic'] and summary['network'] != 'bicubic':
    print(f'worse than bicubic on {summary["images_below_bicubic"]} of {summary["n"]} images')


if __name__ == '__main__':
  main()
