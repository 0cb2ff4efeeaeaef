"""Remarks on files, printed to stderr once per file, and not for each of thousands."""

import threading
from pathlib import Path

from jaxsr.errors import shown, warn

_MOST = 5  # of one kind, per process

_lock = threading.Lock()
_paths: dict[str, set[Path]] = {}  # of each kind


def add(path: Path, kind: str, text: str) -> None:
  """Print a line on a file unless it was printed, or too many of its kind were."""
  with _lock:
    known = _paths.setdefault(kind, set())
    if path in known or len(known) > _MOST:
      return
    known.add(path)
    more = 'more files like this are not named' if len(known) > _MOST else ''
    warn(more or f'{shown(path)}: {text}')
