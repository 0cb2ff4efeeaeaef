"""A side of a comparison in its own process, so that the sides share no threads or memory."""

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.cases import Side
from jaxsr import runtime
from jaxsr.analysis import Work


class Process:
  """A side that another process builds with `build(*arguments)` and runs on request.

  With `keep`, the process keeps freed memory.
  """

  outcome: dict[str, Any]
  compiled_in: float
  bytes: int
  work: Work
  variables: Any

  def __init__(self, keep: bool, build: Callable[..., Any], *arguments: Any, **options: Any):
    context = multiprocessing.get_context('spawn')
    self._pipe, there = context.Pipe()
    given = there, keep, build, arguments, options
    self._process = context.Process(target=_serve, args=given)
    self._process.start()
    there.close()
    vars(self).update(self._receive())

  def __enter__(self) -> 'Process':
    return self

  def __exit__(self, *_: object) -> None:
    self._pipe.close()
    self._process.join()

  def stop(self) -> None:
    """Kill the process."""
    self._process.kill()
    self._process.join()

  def run(self) -> None:
    """Run the work once and wait for its end."""
    self.call(None)

  def call(self, function: Callable[..., Any] | None, *arguments: Any) -> Any:
    """Call a function in the process; None runs the side's work."""
    self._pipe.send((function, arguments))
    return self._receive()

  def _receive(self) -> Any:
    try:
      return self._pipe.recv()
    except EOFError:
      self._process.join()
      sys.exit(f'the process of one side ended with {self._process.exitcode}')


def _serve(
  pipe: Any,
  keep: bool,
  build: Callable[..., Any],
  arguments: tuple[Any, ...],
  options: dict[str, Any],
) -> None:
  if keep:
    runtime.keep_freed_memory()
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')  # the sides share a GPU
  built = build(*arguments, **options)
  side, variables = (built, None) if isinstance(built, Side) else built
  fields = side._asdict() | {'work': side.work(), 'variables': variables}
  pipe.send({name: value for name, value in fields.items() if name != 'run'})
  while True:
    try:
      function, arguments = pipe.recv()
    except EOFError:
      return
    done = function(*arguments) if function else side.run()
    pipe.send(done if function else None)
