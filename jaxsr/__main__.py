"""`python -m jaxsr` and the console command `jaxsr`."""

import os
import signal


def main() -> None:
  """Run the command line and exit; Ctrl-C ends the process at once while that is imported."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
  from jaxsr import cli

  cli.main()


if __name__ == '__main__':
  main()
