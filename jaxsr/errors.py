"""Errors that are reported to the user in one line, and the text of such lines."""

import contextlib
import difflib
import errno
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

FAILED, INVALID = 1, 2  # exit codes
TRY_AGAIN = 75  # sysexits' EX_TEMPFAIL: run the same command again
INTERRUPTED = 130  # what shells report after Ctrl-C
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # EFBIG: the limit of `ulimit -f`
# In the texts of C++ libraries, and of `describe`.
_FULL_TEXTS = ('No space left on device', 'Disk quota exceeded', 'File too large', 'disk is full')


# Control characters, which a terminal obeys: in the name of a file, ESC may hide or change text.
_CONTROLS = {code: f'\\x{code:02x}' for code in (*range(32), *range(127, 160))}
_CONTROLS |= {ord('\n'): '\\n', ord('\r'): '\\r', ord('\t'): '\\t'}
_UNDECODABLE = {code: f'\\x{code - 0xDC00:02x}' for code in range(0xDC80, 0xDD00)}  # of names
_IN_TEXT = {code: shown for code, shown in _CONTROLS.items() if chr(code) not in '\n\r\t'}


def shown(name: object) -> str:
  """Returns a name on one line, with its control characters and undecodable bytes escaped."""
  return decodable(str(name).translate(_CONTROLS))


def decodable(text: str) -> str:
  """Returns a text with the bytes of names that are not UTF-8 escaped, as in `\\xff`."""
  return text.translate(_UNDECODABLE)


def argument(value: object) -> str:
  """Returns a path or name as an argument to paste into a shell.

  It is no option, and no home folder; control characters and undecodable bytes are in the quotes of
  Bash and Zsh that have escapes.
  """
  text = f'./{value}' if str(value).startswith(('-', '~')) else str(value)
  if shown(text) == text:
    return shlex.quote(text)
  return "$'" + ''.join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
  if character in ("'", '\\'):
    return f'\\{character}'
  if shown(character) == character:
    return character
  return ''.join(f'\\x{byte:02x}' for byte in character.encode(errors='surrogateescape'))


class Terminal:
  """A stream of text without undecodable bytes and control characters but line breaks and tabs.

  `stream` takes all of them, for text that has colors.
  """

  def __init__(self, stream: TextIO):
    self.stream = stream

  def __getattr__(self, name: str) -> Any:
    return getattr(self.stream, name)

  def write(self, text: str) -> int:
    """Write text; returns the number of its characters."""
    self.stream.write(decodable(text.translate(_IN_TEXT)))
    return len(text)


class UserError(ValueError):
  """A mistake that the user can correct: what is wrong, what was found, what to do."""


class Interruption(UserError):
  """A run cannot continue now; its state is saved, and the same command resumes it."""


class WriteError(UserError):
  """Files cannot be written, although nothing is wrong with the command."""


class ImageError(UserError):
  """An image file that cannot be used, with the reason."""

  def __init__(self, path: Path, reason: str):
    super().__init__(f'{shown(path)}: {reason}')
    self.path, self.reason = path, reason

  def __reduce__(self):  # so that it survives the way back from a worker process
    return type(self), (self.path, self.reason)


def warn(text: str) -> None:
  """Print a line to stderr, which may be closed."""
  with contextlib.suppress(OSError):
    print(text, file=sys.stderr, flush=True)


class TooLargeError(ImageError):
  """An image with more pixels than are read."""


def nearest(name: str, known: Iterable[str]) -> str:
  """Returns the closest known name as a suggestion, followed by all known names."""
  known = sorted(known)
  close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
  hint = f'did you mean {close[0]!r}? ' if close else ''
  return f'{hint}choose one of: {", ".join(known)}'


def flat(error: BaseException) -> str:
  """Returns the message of the innermost wrapped error, on one line."""
  while error.args and isinstance(error.args[0], BaseException):
    error = error.args[0]
  text = ' '.join(str(error.args[0] if len(error.args) == 1 else error).split())
  return text if ' ' in text else f'there is no {text}'


def one_line(error: BaseException) -> str:
  """Returns the text of another library's error, shortened to one line."""
  return ' '.join(str(error).split())[:120] or type(error).__name__


def first_line(error: BaseException) -> str:
  """Returns the first line of an error's text."""
  return str(error).strip().splitlines()[0]


def describe(error: BaseException) -> str:
  """Returns the line that a command prints for an error before it exits."""
  if isinstance(error, UserError):
    full = is_disk_full(error) and not any(text in str(error) for text in _FULL_TEXTS)
    return f'{error}; the disk is full' if full else str(error)
  if isinstance(error, OSError) and error.strerror:
    place = f'{error.filename}: ' if error.filename is not None else ''
    too_many = error.errno in (errno.EMFILE, errno.ENFILE)
    way_out = '; raise the limit of open files (ulimit -n)' if too_many else ''
    return f'{place}{error.strerror}{way_out}'
  if is_thread_limit(error):
    return f'{one_line(error)}: raise the limit of processes (ulimit -u), or that of the container'
  return one_line(error)


def is_thread_limit(error: BaseException) -> bool:
  """Whether the system has refused to start a thread."""
  return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def is_disk_full(error: BaseException) -> bool:
  """Whether a full disk caused an error, directly or through the error of another library."""
  return any(
    getattr(each, 'errno', None) in _FULL or any(text in str(each) for text in _FULL_TEXTS)
    for each in _chain(error)
  )


def concerns_one_file(error: OSError) -> bool:
  """Whether a file cannot be written because of its name or size, so that others still can be."""
  return error.errno in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EFBIG)


def unwritten(source: Path, target: Path, error: OSError) -> ImageError:
  """Returns the error of an image whose result cannot have its name or size."""
  way_out = 'raise the limit (ulimit -f)' if error.errno == errno.EFBIG else 'rename it'
  text = f'its result cannot be written as {target.name} ({error.strerror}); {way_out}'
  return ImageError(source, text)


def _chain(error: BaseException) -> Iterator[BaseException]:
  """Yield an error and those that it was raised from."""
  seen: set[int] = set()
  found: BaseException | None = error
  while found is not None and id(found) not in seen:
    seen.add(id(found))
    yield found
    found = found.__cause__ or found.__context__


def brief(items: Sequence[str], most: int = 5) -> str:
  """Returns the first items of a list, separated by commas, and the number of the others."""
  more = f' and {len(items) - most} more' if len(items) > most else ''
  return ', '.join(map(shown, items[:most])) + more


def count(number: int, noun: str) -> str:
  """Returns a number with its noun, as in '1 image' and '2 images'."""
  return f'{number:,} {noun}' if number == 1 else f'{number:,} {noun}s'
