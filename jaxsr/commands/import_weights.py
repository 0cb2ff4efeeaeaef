"""`jaxsr import`: convert published weights to a checkpoint."""

import functools
import math
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxsr import config as configs
from jaxsr import files, interop, models
from jaxsr.checkpoint import Checkpoints, run_dir
from jaxsr.commands.options import Import
from jaxsr.config import Config
from jaxsr.config.overrides import override
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError, argument, brief, nearest
from jaxsr.files import new_folder
from jaxsr.interop import Published, WeightMismatchError, trial
from jaxsr.interop.state_dict import FLOATS

MOST = 40  # problems that are printed
_OPTION = '--config.model.'
_FIXED = {
  'scale': 'give --scale',
  'channels': 'the tensors have it; leave it out',
  'model.name': 'give --model',
}
_KINDS = re.compile('(F|BF)(16|32|64)|BOOL|[IUC].*')  # of safetensors that NumPy has


def run(options: Import) -> int:
  """Read and check the weights, write the checkpoint; returns the exit code."""
  config = _config(options)
  given = {name: config.model[name] for name in _overridden(options)}
  try:
    found = interop.read(
      load(options.weights),
      model=options.model,
      scale=options.scale,
      options=given,
      order=options.shuffle_order,
      image=_film(),
    )
  except WeightMismatchError as mismatch:
    for problem in mismatch.problems[:MOST]:
      print(f'  {problem}', file=sys.stderr)
    if len(mismatch.problems) > MOST:
      print(f'  and {len(mismatch.problems) - MOST} more', file=sys.stderr)
    raise UserError(f'{options.weights}: {mismatch}') from mismatch
  config.channels = found.channels
  config.model.update(found.options)
  _write(options, config, found)
  _report(options, found)
  return 0


def _config(options: Import) -> Config:
  if options.model not in models.MODELS:
    raise UserError(
      f'network {options.model!r} is unknown: {nearest(options.model, models.MODELS)}'
    )
  for flag in options.overrides:
    if reason := _FIXED.get(flag.partition('=')[0].removeprefix('--config.')):
      raise UserError(f'{flag}: import does not take this option: {reason}')
  config = configs.base()
  config.scale, config.model = options.scale, configs.network(options.model)
  return override(config, options.overrides)


def _overridden(options: Import) -> list[str]:
  names = [flag.partition('=')[0] for flag in options.overrides]
  return [name.removeprefix(_OPTION) for name in names if name.startswith(_OPTION)]


def _write(options: Import, config: Config, found: Published) -> None:
  """Write the files of a run's folder that inference needs."""
  origin = {'weights': options.weights.name, 'sha256': files.sha256(options.weights)}
  origin |= {'naming': found.naming, 'layout': found.layout}
  state = {'ema': jax.tree.map(jnp.asarray, found.variables)}
  with new_folder(options.output) as folder:
    checkpoints = Checkpoints(folder / 'checkpoints')
    checkpoints.run, checkpoints.config = run_dir.find_id(folder, {}), configs.to_dict(config)
    run_dir.write_config(folder, configs.to_dict(config), run=checkpoints.run, origin=origin)
    checkpoints.save(0, state)
    checkpoints.wait()


def _report(options: Import, found: Published) -> None:
  count, kind = models.count_parameters(found.variables), {1: 'gray', 3: 'RGB'}[found.channels]
  print(f'{options.model} x{options.scale}, {kind}, {count:,} parameters, in {options.output}')
  print(f'  read with the names of {found.naming}, {found.layout}')
  print('  ' + ', '.join(f'{name}={value}' for name, value in found.options.items()))
  network = models.build(options.model, found.options, scale=options.scale, channels=found.channels)
  result = trial.run(network, found.variables, _film())
  print(f'  PSNR on a phantom: {result.psnr:.2f} dB, bicubic {result.bicubic:.2f} dB')
  if problem := _problem(result, options.model):
    print(f'  warning: {problem}: see docs/importing.md', file=sys.stderr)
  output = argument(options.output)
  print(f'  to measure it: jaxsr evaluate --checkpoint {output} --data FOLDER --output eval')


def _problem(result: trial.Result, model: str) -> str:
  """Returns what a trial says against imported weights; '' if they beat bicubic."""
  if result.psnr == -math.inf:
    return 'its output is not finite, so weights are damaged'
  if result.is_bicubic:
    return 'it is bicubic interpolation: the network adds nothing, as if weights are zero'
  if result.psnr < result.bicubic:
    return (
      'it is worse than bicubic. A GAN may be; otherwise these may be the weights of a relative of '
      f'{model} with the same tensor names'
    )
  return ''


@functools.cache
def _film() -> np.ndarray:
  """Returns the phantom that imported networks are tried on, [256, 256] in [0, 1]."""
  return phantom(0, 0, size=256).astype(np.float32) / 255


def load(path: Path) -> dict[str, np.ndarray]:
  """Returns the tensors of a safetensors file by name; raises UserError for any other file."""
  if not path.is_file():
    problem = 'is not a file' if path.exists() else 'no such file'
    raise UserError(f'--weights {path}: {problem}')
  try:
    with safe_open(path, framework='flax') as file:
      kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
      wrong = [f'{name} is {x}' for name, x in kinds.items() if not _KINDS.fullmatch(x)]
      if wrong:
        known = ', '.join(FLOATS)
        raise UserError(f'--weights {path}: {brief(wrong, 1)}: convert it to one of {known}')
      tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except SafetensorError as error:
    raise UserError(
      f'--weights {path}: is not a complete safetensors file ({error}); pickles '
      '(.pt, .pth, .bin, .pkl) are never loaded, because they can run code: '
      'see docs/importing.md to convert one'
    ) from error
  if not tensors:
    raise UserError(f'--weights {path}: holds no tensors')
  return {name: np.asarray(x) for name, x in tensors.items()}
