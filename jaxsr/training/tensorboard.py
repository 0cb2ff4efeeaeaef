"""The only file that writes TensorBoard: scalars, hyper-parameters and image strips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter
from tensorboardX import summary as protos


class Summary:
  """A run's event files; of a run that resumes, what lies beyond `step` is hidden."""

  def __init__(self, folder: Path, *, step: int):
    self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else 0, flush_secs=10)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Write one row."""
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def image(self, step: int, name: str, image: UInt8[np.ndarray, 'h w c']) -> None:
    """Write one picture."""
    self._writer.add_image(name, image, step, dataformats='HWC')

  def begin(self, values: Mapping[str, Any], *metrics: str) -> None:
    """Write what TensorBoard's HParams table shows of this run, which is then said to run."""
    plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
    *start, self._end = protos.hparams(plain, dict.fromkeys(metrics, 0.0))
    for event in start:
      self._add(event)

  def end(self) -> None:
    """Say that the run succeeded."""
    self._add(self._end)

  def _add(self, event: Any) -> None:
    self._writer.file_writer.add_summary(event)  # type: ignore[union-attr]

  def close(self) -> None:
    """Flush and close."""
    self._writer.close()
