"""The console command `jaxsr`.

Exit codes: 0 success; 1 some images failed, or a file could not be read or written; 2 invalid
command or config; 75 stopped after saving, run again; 130 interrupted.
"""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from typing import Annotated, Any, Union

import tyro

import jaxsr
from jaxsr import runtime
from jaxsr.commands import compiled_programs, interrupts, options
from jaxsr.errors import (
  FAILED,
  INTERRUPTED,
  INVALID,
  TRY_AGAIN,
  Interruption,
  Terminal,
  UserError,
  WriteError,
  describe,
  is_disk_full,
  is_thread_limit,
  nearest,
)

# Each command: its options, and the module of `jaxsr.commands` that runs it.
COMMANDS: dict[str, tuple[type, str]] = {
  'upscale': (options.Upscale, 'upscale'),
  'evaluate': (options.Evaluate, 'evaluate'),
  'compare': (options.Compare, 'compare'),
  'calibrate': (options.Calibrate, 'calibrate'),
  'train': (options.Train, 'train'),
  'models': (options.Models, 'models'),
  'package': (options.PackageCommand, 'package'),
  'export': (options.Export, 'export'),
  'demo': (options.Demo, 'demo'),
  'compress': (options.Compress, 'compress'),
  'import': (options.Import, 'import_weights'),
  'data': (options.Data, 'data'),
  'phantom': (options.Phantom, 'phantom'),
  'degrade': (options.Degrade, 'degrade'),
  'doctor': (options.Doctor, 'doctor'),
}
_THREADS = 32  # of JAX and this package, above those per core
_OVERRIDE = re.compile(r'--(no)?config\.')
_TILDE = re.compile(r'(--?[\w.-]+=)?~')
_BOOLEANS = {'true': True, '1': True, 'false': False, '0': False}


def main(arguments: Sequence[str] | None = None) -> None:
  """Run the command line and exit; `arguments` default to those of the process."""
  if arguments is not None:
    sys.exit(run(arguments))
  interrupts.handle()
  runtime.keep_freed_memory()
  runtime.open_standard_files()
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')  # names that the terminal cannot show
  code = run(sys.argv[1:], is_process=True)
  interrupts.end_at_once()
  if sys.argv[1:2] == ['train']:
    runtime.leave(code)
  if sys.argv[1:2] == ['upscale']:
    with contextlib.suppress(OSError):
      sys.stdout.flush()
      runtime.leave(code)  # Python would take a tenth of the time to destroy what JAX holds
  sys.exit(code)


def run(arguments: Sequence[str], *, is_process: bool = False) -> int:
  """Parse the arguments and run the command.

  Args:
    arguments: The command and its options.
    is_process: Whether the command is all that this process runs. It then keeps compiled programs,
      and makes each CPU core a JAX device, except in training.

  Returns:
    The exit code. Errors are printed in one line, unless `--debug` is among the arguments.
  """
  if list(arguments) in (['--version'], ['-V']):
    print(f'jaxsr {jaxsr.__version__}')
    return 0
  arguments = [_expand_home(argument) for argument in arguments]
  try:
    name, command = _parse(arguments)
    if is_process:
      runtime.check_threads(_THREADS + 4 * runtime.cpu_count())
      if name != 'train':
        runtime.use_cpu_devices()
    out: Any = Terminal(sys.stdout)
    err: Any = Terminal(sys.stderr)
    keeping = compiled_programs.kept() if is_process else contextlib.nullcontext()
    with keeping, redirect_stdout(out), redirect_stderr(err):
      return import_module(f'jaxsr.commands.{COMMANDS[name][1]}').run(command)
  except KeyboardInterrupt:
    return INTERRUPTED
  except BrokenPipeError:  # the reader of a pipe left early, as `head` does
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
  except Exception as error:
    if not isinstance(error, UserError) and not runtime.has_devices():
      platforms = os.environ.get('JAX_PLATFORMS')
      error = UserError(f'JAX finds no device of JAX_PLATFORMS={platforms}; unset it, or set cpu')
    failed = isinstance(error, OSError | WriteError)
    if failed or is_disk_full(error) or is_thread_limit(error):
      code = FAILED
    elif isinstance(error, Interruption):
      code = TRY_AGAIN
    elif isinstance(error, UserError):
      code = INVALID
    else:
      raise
    if any(each in ('--debug', '--debug=true', '--debug=1') for each in arguments):
      raise
    print(f'error: {describe(error)}', file=Terminal(sys.stderr))
    return code


def _expand_home(argument: str) -> str:
  """Expand `~` at the start of a value, also after `--option=`, where shells do not."""
  found = _TILDE.match(argument)
  if found is None:
    return argument
  start = found.end() - 1
  return argument[:start] + os.path.expanduser(argument[start:])


def _parse(arguments: Sequence[str]) -> tuple[str, Any]:
  """Returns the name of the command and its options; raises UserError."""
  name = arguments[0] if arguments else ''
  if name and not name.startswith('-') and name not in COMMANDS:
    raise UserError(f'command {name!r} is unknown: {nearest(name, COMMANDS)}')
  overrides, rest = _split_overrides(arguments)
  commands = Union[  # noqa: UP007
    tuple(
      Annotated[
        kind, tyro.conf.subcommand(key, description=None if name in COMMANDS else _summary(kind))
      ]
      for key, (kind, _) in COMMANDS.items()
    )
  ]
  command, unknown = tyro.cli(
    commands,  # type: ignore[arg-type]
    args=list(_write_out_booleans(rest)),
    prog='jaxsr',
    description='Super-resolution of chest radiographs. For research, not for diagnosis.',
    config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
    return_unknown_args=True,
  )
  if unknown:
    raise UserError(_not_understood(name, unknown[0], command))
  if overrides:
    if not hasattr(command, 'overrides'):
      raise UserError(f'{overrides[0]}: `jaxsr {name}` has no config')
    command = dataclasses.replace(command, overrides=tuple(overrides))
  return name, command


def _summary(kind: type) -> str:
  """Returns the first line of a command's description, for the list of commands."""
  return str(kind.__doc__).partition('\n')[0]


def _split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
  """Separate `--config.KEY=VALUE` and `--config.KEY VALUE` from the other arguments."""
  overrides: list[str] = []
  rest: list[str] = []
  takes_value = False
  for argument in arguments:
    if takes_value and not argument.startswith('--'):
      overrides[-1] += f'={argument}'
      takes_value = False
    elif _OVERRIDE.match(argument):
      overrides.append(argument)
      takes_value = '=' not in argument
    else:
      rest.append(argument)
      takes_value = False
  return overrides, rest


def _write_out_booleans(arguments: Sequence[str]) -> Iterator[str]:
  """Replace `--debug=true` by `--debug` and `--debug=false` by `--no-debug`, for every switch."""
  kinds = [kind for kind, _ in COMMANDS.values()] + options.DATA_ACTIONS
  switches = {f.name for kind in kinds for f in dataclasses.fields(kind) if f.type is bool}
  for argument in arguments:
    name, _, value = argument.removeprefix('--').partition('=')
    if name.replace('-', '_') in switches and value.lower() in _BOOLEANS:
      yield f'--{name}' if _BOOLEANS[value.lower()] else f'--no-{name}'
    else:
      yield argument


def _not_understood(name: str, argument: str, command: Any) -> str:
  """Returns the message for an argument that the command does not have."""
  help_command = f'jaxsr {name} --help'
  if not argument.startswith('-'):
    return f'argument {argument!r} is not understood; see {help_command}'
  leaf = command.action if isinstance(command, options.Data) else command
  known = [f'--{field.name.replace("_", "-")}' for field in dataclasses.fields(leaf)]
  close = difflib.get_close_matches(argument.partition('=')[0], known, n=1, cutoff=0.5)
  hint = f'did you mean {close[0]}? ' if close else ''
  return f'option {argument!r} is unknown: {hint}see {help_command}'


if __name__ == '__main__':
  main()
