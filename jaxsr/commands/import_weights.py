"""`jaxsr import`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from safetensors import SafetensorError, safe_open

from jaxsr import config as configs
from jaxsr import files, interop, models
from jaxsr.checkpoint import Checkpoints, run_dir
from jaxsr.config import Config
from jaxsr.errors import UserError, nearest
from jaxsr.files import new_folder
from jaxsr.interop import Misfit, Published

MOST = 40  # lines of problems that are shown
_OPTION = '--config.model.'


@dataclass(frozen=True)
class Import:
  """Turn weights that others published into a checkpoint for `evaluate` and `upscale`.

  Width, depth and channels are read from the tensors; `--config.model.KEY=VALUE` sets what they
  cannot tell, such as `residual_scaling` or `padding`.
  """

  model: str
  """The network; `jaxsr models` lists them."""
  weights: Path
  """A safetensors file with the names of a public implementation, or of this project."""
  output: Path
  """A new folder for the checkpoint."""
  scale: Literal[2, 3, 4, 8] = 4
  """How many times the network enlarges."""
  shuffle_order: Literal['torch', 'tensorflow'] | None = None
  """Order of the channels before a pixel shuffle (default: PyTorch's, but under our own names)."""
  overrides: tyro.conf.Suppress[tuple[str, ...]] = ()
  debug: bool = False
  """Show where an error was raised."""

  def run(self) -> int:
    """Read, check and write; return the exit code."""
    config = self._config()
    options = {name: config.model[name] for name in self._overridden()}
    try:
      found = interop.read(
        load(self.weights),
        model=self.model,
        scale=self.scale,
        options=options,
        order=self.shuffle_order,
      )
    except Misfit as misfit:
      for problem in misfit.problems[:MOST]:
        print(f'  {problem}', file=sys.stderr)
      if len(misfit.problems) > MOST:
        print(f'  and {len(misfit.problems) - MOST} more', file=sys.stderr)
      raise UserError(f'{self.weights}: {misfit}') from misfit
    config.channels = found.channels
    config.model.update(found.options)
    self._write(config, found)
    self._report(found)
    return 0

  def _config(self) -> Config:
    if self.model not in models.MODELS:
      raise UserError(f'network {self.model!r} is unknown: {nearest(self.model, models.MODELS)}')
    config = configs.base()
    config.scale, config.model = self.scale, configs.network(self.model)
    return configs.override(config, self.overrides)

  def _overridden(self) -> list[str]:
    names = [flag.partition('=')[0] for flag in self.overrides]
    return [name.removeprefix(_OPTION) for name in names if name.startswith(_OPTION)]

  def _write(self, config: Config, found: Published) -> None:
    """Write what a run's folder holds, as far as inference needs it."""
    origin = {'weights': self.weights.name, 'sha256': files.sha256(self.weights)}
    origin |= {'naming': found.naming, 'layout': found.layout}
    state = {'ema': jax.tree.map(jnp.asarray, found.variables)}
    with new_folder(self.output) as folder:
      run_dir.write_config(folder, configs.to_dict(config), origin=origin)
      checkpoints = Checkpoints(folder / 'checkpoints')
      checkpoints.save(0, state)
      checkpoints.wait()

  def _report(self, found: Published) -> None:
    count, kind = models.count_parameters(found.variables), {1: 'gray', 3: 'RGB'}[found.channels]
    print(f'{self.model} x{self.scale}, {kind}, {count:,} parameters, in {self.output}')
    print(f'  read with the names of {found.naming}, {found.layout}')
    print('  ' + ', '.join(f'{name}={value}' for name, value in found.options.items()))
    print(f'  evaluate: jaxsr evaluate --checkpoint {self.output} --data DIR --output DIR')


def load(path: Path) -> dict[str, np.ndarray]:
  """Read the tensors of a safetensors file; raises UserError for any other."""
  if not path.is_file():
    raise UserError(f'--weights {path}: is no file')
  try:
    with safe_open(path, framework='flax') as file:
      tensors: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except SafetensorError as error:
    raise UserError(
      f'--weights {path}: is no whole safetensors file ({error}); a pickle (.pt, .pth, .bin, .pkl) '
      'is never loaded, because that runs it: docs/importing.md tells how to convert one'
    ) from error
  if not tensors:
    raise UserError(f'--weights {path}: holds no tensors')
  return {name: np.asarray(x) for name, x in tensors.items()}
