"""What a user can get wrong."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class UserError(ValueError):
  """Says in one line which value broke which rule, and the way out."""


class ImageError(UserError):
  """Names a file that cannot be used, and why."""

  def __init__(self, path: Path, reason: str):
    super().__init__(f'{path}: {reason}')
    self.path, self.reason = path, reason

  def __reduce__(self):  # so that it survives the way back from a worker process
    return type(self), (self.path, self.reason)


def nearest(name: str, known: Iterable[str]) -> str:
  """Name what the user may have meant, then all that there is."""
  known = sorted(known)
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  hint = f'did you mean {close[0]!r}? ' if close else ''
  return f'{hint}there are: {", ".join(known)}'


def flat(error: BaseException) -> str:
  """Give the text of an error that another may be wrapped in, on one line."""
  while error.args and isinstance(error.args[0], BaseException):
    error = error.args[0]
  text = ' '.join(str(error.args[0] if len(error.args) == 1 else error).split())
  return text if ' ' in text else f'there is no {text}'


def one_line(error: BaseException) -> str:
  """Shorten the text of an error of another library to one line."""
  return ' '.join(str(error).split())[:120] or type(error).__name__


def first_line(error: BaseException) -> str:
  """Return the first line of an error's text."""
  return str(error).strip().splitlines()[0]


def brief(items: Sequence[str], most: int = 5) -> str:
  """Join the first items of a list, and count the others."""
  more = f' and {len(items) - most} more' if len(items) > most else ''
  return ', '.join(items[:most]) + more
