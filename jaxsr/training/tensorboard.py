"""TensorBoard output: scalars, hyperparameters and image strips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import SummaryWriter
from tensorboardX import summary as protos


class Summary:
  """The event files of a run; a run that resumes hides the events after `step`."""

  def __init__(self, folder: Path, *, step: int):
    self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else 0, flush_secs=10)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Write scalars of a step."""
    for name, value in values.items():
      self._writer.add_scalar(name, value, step)

  def image(self, step: int, name: str, image: UInt8[np.ndarray, 'h w c']) -> None:
    """Write an image."""
    self._writer.add_image(name, image, step, dataformats='HWC')

  def begin(self, values: Mapping[str, Any], *metrics: str) -> None:
    """Write the hyperparameters for TensorBoard's HPARAMS tab, with the status *running*."""
    plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
    *start, self._end = protos.hparams(plain, dict.fromkeys(metrics, 0.0))
    for event in start:
      self._add(event)

  def end(self) -> None:
    """Set the status of the run to *success*."""
    self._add(self._end)

  def _add(self, event: Any) -> None:
    self._writer.file_writer.add_summary(event)  # type: ignore[union-attr]

  def close(self) -> None:
    """Flush and close the files."""
    self._writer.close()
