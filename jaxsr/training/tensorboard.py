"""TensorBoard output: scalars, hyperparameters and image strips.

The messages are TensorBoard's own: tensorboardX, which has functions for them, imports PyTorch
wherever it is installed, which delays each start by a second.
"""

# protobuf makes its classes at run time
# pyright: reportAttributeAccessIssue=false

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from tensorboard.compat.proto.event_pb2 import SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary as Message
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.api_pb2 import (
  DataType,
  Experiment,
  HParamInfo,
  MetricInfo,
  MetricName,
  Status,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import (
  HParamsPluginData,
  SessionEndInfo,
  SessionStartInfo,
)

from jaxsr.training.event_file import EventFile

# How the HPARAMS tab stores a value: the field of its message, and the type that it is shown as.
_NUMBER = ('number_value', DataType.Value('DATA_TYPE_FLOAT64'))
_FIELDS = {
  bool: ('bool_value', DataType.Value('DATA_TYPE_BOOL')),
  int: _NUMBER,
  float: _NUMBER,
  str: ('string_value', DataType.Value('DATA_TYPE_STRING')),
}


class Summary:
  """The event file of a start; a run that resumes hides the events after `step`."""

  def __init__(self, folder: Path, *, step: int):
    self._file = EventFile(folder)
    start = SessionLog(status=SessionLog.START)
    self._file.add(step + 1 if step else 0, session_log=start)

  def scalars(self, step: int, values: Mapping[str, float]) -> None:
    """Write scalars of a step."""
    for name, value in values.items():
      self._add(step, tag=_tag(name), simple_value=float(value))

  def image(self, step: int, name: str, image: UInt8[np.ndarray, 'h w c']) -> None:
    """Write an image."""
    height, width, channels = image.shape
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if channels == 1 else image).save(file, 'PNG')
    shown = Message.Image(
      height=height, width=width, colorspace=channels, encoded_image_string=file.getvalue()
    )
    self._add(step, tag=_tag(_text(name)), image=shown)

  def begin(self, values: Mapping[str, Any], *metrics: str) -> None:
    """Write the hyperparameters for TensorBoard's HPARAMS tab, with the status *running*."""
    start, infos = SessionStartInfo(), []
    for name, value in values.items():
      plain = value if isinstance(value, (bool, int, float)) else _text(value)
      field, kind = _FIELDS[type(plain)]
      setattr(start.hparams[name], field, plain)
      infos.append(HParamInfo(name=name, type=kind))
    names = [MetricInfo(name=MetricName(tag=name)) for name in metrics]
    experiment = Experiment(hparam_infos=infos, metric_infos=names)
    self._add_session(metadata.EXPERIMENT_TAG, experiment=experiment)
    self._add_session(metadata.SESSION_START_INFO_TAG, session_start_info=start)

  def end(self) -> None:
    """Set the status of the run to *success*."""
    end = SessionEndInfo(status=Status.Value('STATUS_SUCCESS'))
    self._add_session(metadata.SESSION_END_INFO_TAG, session_end_info=end)

  def close(self) -> None:
    """Write the events that still wait, and close the file."""
    self._file.close()

  def _add(self, step: int, **value: Any) -> None:
    self._file.add(step, summary=Message(value=[Message.Value(**value)]))

  def _add_session(self, tag: str, **content: Any) -> None:
    """Write a message of the HPARAMS tab."""
    data = metadata.create_summary_metadata(HParamsPluginData(**content))
    self._add(0, tag=tag, metadata=data)


def _tag(name: str) -> str:
  """Returns a name with the characters that TensorBoard's tags may have."""
  return re.sub(r'[^-/\w.]', '_', name).lstrip('/')


def _text(value: Any) -> str:
  """Returns a value as text; file names may hold bytes that are not UTF-8."""
  return str(value).encode(errors='backslashreplace').decode()
