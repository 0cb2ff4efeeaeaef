"""Write and read one checkpoint; the only module that uses Orbax.

Orbax does not detect a flipped bit. So a checkpoint holds the SHA-256 of every array, computed
before Orbax gets it, and of every file; both are checked when it is read.
"""

import errno
import glob
import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from jaxsr import files
from jaxsr.errors import UserError, WriteError

Tree = Any

# Errors of a system that lacks something, or refuses it, and not of the files.
_REFUSED = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_REFUSED += (errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN)
# Orbax takes `gs:/` for Google's storage, also inside a path, and epath `/gs/` and its relatives.
_URL = re.compile('(gs|s3|az|hf):/|^/+(gs|s3|az|hf)/')
_NO_MEMORY = 'RESOURCE_EXHAUSTED'  # in the texts of JAX


class CheckpointError(UserError):
  """A checkpoint cannot be written or read, or does not fit the request."""


class SaveError(CheckpointError, WriteError):
  """A checkpoint cannot be written."""


class CorruptCheckpointError(Exception):
  """A checkpoint is damaged or incomplete."""


def write(path: Path, tree: Tree, record: Mapping[str, Any]) -> Callable[[], None]:
  """Start writing a tree with a JSON record; the returned function waits until it is complete.

  The tree may be donated as soon as this returns.
  """
  arrays = dict(_named(tree))
  with ExitStack() as stack:
    saved = ocp.save_checkpointables_async(
      stack.enter_context(_literal(path)),
      {'state': {'arrays': arrays}},
      overwrite=True,
      custom_metadata={**record, 'sums': sums(arrays)},  # type: ignore[arg-type]
    )
    opened = stack.pop_all()  # until it is written

  def finish() -> None:
    with opened:
      saved.result()
    if jax.process_index() == 0:
      files.write_manifest(path)
      files.sync(path)

  return finish


def check(path: Path) -> None:
  """Raise CorruptCheckpointError unless every file is as it was written.

  Like all functions that read, it raises CheckpointError if the files cannot be read now.
  """
  with _damage(path):
    files.verify_manifest(path)


def read_record(path: Path) -> dict[str, Any]:
  """Read the record; raises CorruptCheckpointError if there is none."""
  with _damage(path), _literal(path) as name:
    found: Any = ocp.checkpointables_metadata(name).custom_metadata
    if not found or 'step' not in found:  # Orbax takes a damaged file for an empty one
      raise ValueError('its record is missing')
    return dict(found)


def verify(path: Path) -> None:
  """Read a checkpoint back; raises CorruptCheckpointError if it changed since then."""
  check(path)
  described = read_record(path)['sums']
  kinds = {name: (shape, jax.numpy.dtype(kind)) for name, (_, shape, kind) in described.items()}
  empty = {name: np.empty(*kind) for name, kind in kinds.items()}
  with _damage(path), _literal(path) as name:
    found = ocp.load_checkpointables(name, {'state': {'arrays': empty}})['state']['arrays']
  _check_sums(found, described)


def read(path: Path, target: Tree, parts: tuple[str, ...] = ('',)) -> Tree:
  """Read the arrays whose names begin with one of `parts`.

  `target` gives their shapes and shardings. Raises CorruptCheckpointError if a sum differs,
  CheckpointError if the checkpoint is of another architecture.
  """
  expected = {k: v for k, v in read_record(path)['sums'].items() if k.startswith(parts)}
  shapes = dict(_named(target))
  _compare(path, expected, shapes)
  place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)  # noqa: E731
  context = ocp.Context()
  context.pytree_options.loading.partial_load = True
  with _damage(path), context, _literal(path) as name:
    abstract = {'state': {'arrays': jax.tree.map(place, shapes)}}
    arrays = ocp.load_checkpointables(name, abstract)['state']['arrays']
  _check_sums(arrays, expected)
  return jax.tree.unflatten(jax.tree.structure(target), [arrays[name] for name in shapes])


@contextmanager
def _literal(path: Path) -> Iterator[str]:
  """Yield a name for a path in UTF-8, without characters of patterns and URLs, for Orbax."""
  if not (glob.has_magic(str(path)) or _URL.search(str(path))) and _is_utf8(path):
    yield str(path)
    return
  with tempfile.TemporaryDirectory(prefix='jaxsr-') as folder:
    link = Path(folder, 'link')
    link.symlink_to(path.parent)
    yield str(link / path.name)


def _is_utf8(path: Path) -> bool:
  try:
    os.fsencode(path).decode('utf-8')
  except UnicodeDecodeError:
    return False
  return sys.getfilesystemencoding() == 'utf-8'


def _check_sums(arrays: Mapping[str, Any], expected: Mapping[str, list]) -> None:
  for name, found in sums(arrays).items():
    if found != expected[name]:
      raise CorruptCheckpointError(f'SHA-256 of {name} differs')


def sums(arrays: Mapping[str, jax.Array | np.ndarray]) -> dict[str, list]:
  """Returns the SHA-256, shape and dtype of each array."""
  host = jax.device_get(dict(arrays))
  return {name: [_sum(x), list(x.shape), str(x.dtype)] for name, x in host.items()}


def _sum(array: np.ndarray) -> str:
  return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _named(tree: Tree) -> list[tuple[str, Any]]:
  """Returns the leaves with their paths as names; files hold no classes."""
  leaves, _ = jax.tree.flatten_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), x) for path, x in leaves]


def _compare(path: Path, saved: Mapping[str, list], wanted: Mapping[str, Any]) -> None:
  """Raise CheckpointError if the arrays are of another architecture than the target."""
  for name in sorted(saved.keys() | wanted.keys()):
    if name not in saved or name not in wanted:
      side = 'lacks' if name in wanted else 'has'
      raise CheckpointError(f'{path}: is of another architecture: it {side} {name}')
    there, here = saved[name][1:], [list(wanted[name].shape), str(wanted[name].dtype)]
    if there != here:
      raise CheckpointError(
        f'{path}: is of another architecture: {name} is {there[0]} {there[1]} there, '
        f'{here[0]} {here[1]} here'
      )


@contextmanager
def _damage(path: Path) -> Iterator[None]:
  """Turn errors of Orbax and TensorStore into CorruptCheckpointError; silence their logs.

  Files that the system does not let us read, or that memory does not suffice for, may be whole:
  that is a CheckpointError.
  """
  logger = logging.getLogger('absl')
  level = logger.level
  logger.setLevel(logging.CRITICAL + 1)
  try:
    yield
  except Exception as error:
    if _is_refused(error):
      text = f'{path}: cannot be read now ({summarize_error(error)}); it was left as it is'
      raise CheckpointError(text) from error
    raise CorruptCheckpointError(summarize_error(error)) from error
  finally:
    logger.setLevel(level)


def _is_refused(error: Exception) -> bool:
  known = isinstance(error, MemoryError) or getattr(error, 'errno', None) in _REFUSED
  return known or str(error).startswith(_NO_MEMORY)


def summarize_error(error: Exception) -> str:
  """Returns the type and the first line of an error, shortened."""
  lines = str(error).strip().splitlines()
  return f'{type(error).__name__}: {lines[0][:160]}' if lines else type(error).__name__
