"""The console command `jaxsr`. Exit codes: 0 all done, 1 some images failed, 2 not understood."""

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from jaxsr.commands.evaluate import Evaluate
from jaxsr.commands.phantom import Phantom
from jaxsr.commands.report import SOME_FAILED
from jaxsr.commands.upscale import Upscale
from jaxsr.errors import UserError

NOT_UNDERSTOOD = 2

Command = (
  Annotated[Evaluate, tyro.conf.subcommand('evaluate')]
  | Annotated[Upscale, tyro.conf.subcommand('upscale')]
  | Annotated[Phantom, tyro.conf.subcommand('phantom')]
)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parse the command line, run the command and exit."""
  command = tyro.cli(
    Command,  # type: ignore[arg-type]
    args=arguments,
    prog='jaxsr',
    description='Super-resolution of chest radiographs. For research, not for diagnosis.',
    config=(tyro.conf.OmitArgPrefixes,),
  )
  try:
    code = command.run()
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


if __name__ == '__main__':
  main()
