"""The console command `jaxsr`. Exit codes: 0 all done, 1 some images failed, 2 not understood."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import tyro

from jaxsr import runtime
from jaxsr.commands.compress import Compress
from jaxsr.commands.data import Data
from jaxsr.commands.evaluate import Evaluate
from jaxsr.commands.import_weights import Import
from jaxsr.commands.models import Models
from jaxsr.commands.package import PackageCommand
from jaxsr.commands.phantom import Phantom
from jaxsr.commands.report import SOME_FAILED
from jaxsr.commands.upscale import Upscale
from jaxsr.errors import UserError

NOT_UNDERSTOOD = 2

OVERRIDE = '--config.'
Command = (
  Annotated[Evaluate, tyro.conf.subcommand('evaluate')]
  | Annotated[Upscale, tyro.conf.subcommand('upscale')]
  | Annotated[Models, tyro.conf.subcommand('models')]
  | Annotated[Import, tyro.conf.subcommand('import')]
  | Annotated[Compress, tyro.conf.subcommand('compress')]
  | Annotated[PackageCommand, tyro.conf.subcommand('package')]
  | Annotated[Data, tyro.conf.subcommand('data')]
  | Annotated[Phantom, tyro.conf.subcommand('phantom')]
)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parse the command line, run the command and exit."""
  if arguments is None:
    runtime.keep_freed_memory()
    runtime.use_cpu_devices()
    arguments = sys.argv[1:]
  overrides = tuple(a for a in arguments if a.startswith(OVERRIDE))
  command = tyro.cli(
    Command,  # type: ignore[arg-type]
    args=[a for a in arguments if a not in overrides],
    prog='jaxsr',
    description='Super-resolution of chest radiographs. For research, not for diagnosis.',
    config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
  )
  try:
    code = _with_overrides(command, overrides).run()
  except UserError as error:
    if command.debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    code = NOT_UNDERSTOOD
  except OSError as error:
    if command.debug:
      raise
    print(f'error: {error}', file=sys.stderr)
    code = SOME_FAILED
  except KeyboardInterrupt:
    code = 130
  sys.exit(code)


def _with_overrides(command: Command, overrides: tuple[str, ...]) -> Command:
  """Hand `--config.KEY=VALUE` to a command that has a config."""
  if not overrides:
    return command
  if not isinstance(command, Models | Import | Compress):
    raise UserError(f'{overrides[0]}: this command has no config')
  return replace(command, overrides=overrides)


if __name__ == '__main__':
  main()
