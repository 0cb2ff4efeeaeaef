"""`jaxsr train` and `main.py`: train, resume and validate a network."""

import logging

from absl import flags

from jaxsr import config as configs
from jaxsr import runtime
from jaxsr.commands.options import Train
from jaxsr.config.overrides import override
from jaxsr.errors import UserError

_THREADS = 64  # of JAX, Orbax and this package, above those per core and worker


def run(options: Train) -> int:
  """Train until the last step or until a signal; returns the exit code."""
  config, workdir = options.config, options.workdir
  if config is None or workdir is None:
    missing = '--config' if config is None else '--workdir'
    raise UserError(f'{missing} is missing: jaxsr train --config=FILE --workdir=FOLDER')
  settings = override(configs.load(config), options.overrides)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl flags
  if not options.debug:
    logging.getLogger('absl').addFilter(_is_not_reported_later)
  runtime.check_threads(_THREADS + 4 * runtime.cpu_count() + 16 * settings.data.workers)
  from jaxsr.training.train import train  # after the config was read: mistakes show at once

  if options.distributed:
    import jax

    jax.distributed.initialize(options.coordinator, options.processes, options.process)
  return train(
    settings, workdir, allow_config_change=options.allow_config_change, restart=options.restart
  )


def _is_not_reported_later(record: logging.LogRecord) -> bool:
  """Whether a log record is no error of a thread of Orbax's, which saving raises again."""
  return '_SignalingThread' not in record.getMessage()
