"""TensorBoard output: scalars, hyperparameters and image strips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tensorboardX import summary as protos
from tensorboardX.proto.event_pb2 import SessionLog  # type: ignore[attr-defined]

from jaxsr.training.event_file import EventFile


class Summary:
  """The event file of a start; a run that resumes hides the events after `step`."""

  def __init__(self, folder: Path, *, step: int):
    self._file = EventFile(folder)
    start = SessionLog(status=SessionLog.START)
    self._file.add(step + 1 if step else 0, session_log=start)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Write scalars of a step."""
    for name, value in values.items():
      self._file.add(step, summary=protos.scalar(name, value))

  def image(self, step: int, name: str, image: UInt8[np.ndarray, 'h w c']) -> None:
    """Write an image."""
    self._file.add(step, summary=protos.image(_text(name), image, dataformats='HWC'))

  def begin(self, values: Mapping[str, Any], *metrics: str) -> None:
    """Write the hyperparameters for TensorBoard's HPARAMS tab, with the status *running*."""
    plain = {k: v if isinstance(v, (bool, int, float)) else _text(v) for k, v in values.items()}
    *start, self._end = protos.hparams(plain, dict.fromkeys(metrics, 0.0))
    for each in start:
      self._file.add(0, summary=each)

  def end(self) -> None:
    """Set the status of the run to *success*."""
    self._file.add(0, summary=self._end)

  def close(self) -> None:
    """Write the events that still wait, and close the file."""
    self._file.close()


def _text(value: Any) -> str:
  """Returns a value as text; file names may hold bytes that are not UTF-8."""
  return str(value).encode(errors='backslashreplace').decode()
