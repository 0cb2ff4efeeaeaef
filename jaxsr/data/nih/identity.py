"""Whether a copy is the one that records were made of, by its files' sizes and times."""

import hashlib
from pathlib import Path
from typing import Any

from jaxsr.data.nih.local_copy import Shard


def digest(*parts: Any) -> str:
  """Returns a short hash of values by their `repr`."""
  return hashlib.sha256(repr(parts).encode(errors='surrogateescape')).hexdigest()[:12]


def of_shard(shard: Shard) -> str:
  """Returns a hash of the sizes and times of a shard's files as they are now."""
  return digest(*(_stamp(Path(shard.path, file)) for file in shard.files or ('',)))


def _stamp(path: Path) -> tuple[int, int] | None:
  try:
    found = path.stat()
  except OSError:
    return None
  return found.st_size, found.st_mtime_ns
