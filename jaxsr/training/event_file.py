"""One event file of TensorBoard, written by a thread that training never waits for."""

import contextlib
import io
import itertools
import os
import queue
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[attr-defined]
from tensorboard.summary.writer.record_writer import RecordWriter

MOST = 10_000  # events that wait for the disk; further ones are dropped
_PATIENCE = 10.0  # seconds to write the last events in
_LENGTH, _AROUND = struct.Struct('<Q4x'), 16  # bytes of a record's length and its two sums
_NUMBER = re.compile(r'events\.out\.tfevents\.(\d{1,15})\.')


class EventFile:
  """A new event file in a folder.

  TensorBoard reads the files of a folder in the order of their names, and drops what an earlier
  file has of the steps after a restart. So a file is named by the time or, if the clock stood still
  or was set back, by a number above those of the other files.
  """

  def __init__(self, folder: Path):
    self._folder = folder
    self._waiting: queue.Queue[Event | None] = queue.Queue(MOST)
    self._told = False
    self._thread = threading.Thread(target=self._write, daemon=True)
    self._thread.start()
    self.add(0, file_version='brain.Event:2')

  def add(self, step: int, **content: Any) -> None:
    """Add an event, which is dropped with a message if too many wait for the disk."""
    try:
      self._waiting.put_nowait(Event(wall_time=time.time(), step=step, **content))
    except queue.Full:
      self._tell('the disk does not take them')

  def close(self) -> None:
    """Write the events that wait, for at most 10 seconds, and close the file."""
    end = time.monotonic() + _PATIENCE
    try:
      self._waiting.put(None, timeout=_PATIENCE)
    except queue.Full:
      return
    self._thread.join(max(0.0, end - time.monotonic()))

  def _write(self) -> None:
    """Write events until None comes; what cannot be written whole is dropped."""
    file, size, ended = None, 0, False
    while not ended:
      events = [self._waiting.get()]
      while not self._waiting.empty():
        events.append(self._waiting.get())
      ended = None in events
      records = _encode([event for event in events if event is not None])
      try:
        if file is None or os.fstat(file).st_nlink == 0:  # deleted while it was written
          file, size = _create(self._folder), 0
        size += _write_all(file, records)
      except OSError as error:
        self._tell(error.strerror or str(error))
        if file is not None:
          with contextlib.suppress(OSError):
            os.ftruncate(file, size)  # TensorBoard would not read past half a record
    if file is not None:
      os.close(file)

  def _tell(self, reason: str) -> None:
    """Print once that the curves have a gap."""
    if not self._told:
      self._told = True
      text = f'{self._folder}: events of TensorBoard cannot be written ({reason}); the curves have'
      print(f'{text} a gap, and training continues', file=sys.stderr, flush=True)


def _encode(events: list[Event]) -> bytes:
  records = io.BytesIO()
  writer = RecordWriter(records)
  for event in events:
    writer.write(event.SerializeToString())
  return records.getvalue()


def _write_all(file: int, content: bytes) -> int:
  """Write bytes; returns how many. Raises OSError if not all can be written."""
  view = memoryview(content)
  while view:
    view = view[os.write(file, view) :]
  return len(content)


def last_step(folder: Path) -> int:
  """Returns the last step in the event files of a folder, up to damage; 0 if there is none."""
  paths = (path for path in folder.glob('events.out.tfevents.*') if path.is_file())
  return max((step for path in paths for step in _read_steps(path)), default=0)


def _read_steps(path: Path) -> Iterator[int]:
  """Yield the step of each event, until one is damaged or cut."""
  left = path.stat().st_size
  with path.open('rb') as file, contextlib.suppress(DecodeError):
    while left >= _AROUND and (length := _LENGTH.unpack(file.read(12))[0]) <= left - _AROUND:
      yield Event.FromString(file.read(length)).step
      file.seek(4, io.SEEK_CUR)
      left -= length + _AROUND


def _create(folder: Path) -> int:
  """Create the file and return its descriptor."""
  found = (_NUMBER.match(name) for name in os.listdir(folder))
  last = max((int(match[1]) for match in found if match), default=0)
  for number in itertools.count(max(int(time.time()), last + 1)):
    path = folder / f'events.out.tfevents.{number:010d}.{socket.gethostname()}'
    try:
      flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
      return os.open(path, flags, 0o666)
    except FileExistsError:
      continue
  raise AssertionError  # `count` does not end
