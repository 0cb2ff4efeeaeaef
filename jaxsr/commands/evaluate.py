"""`jaxsr evaluate`: measure a network on full-size images."""

import sys
from contextlib import nullcontext
from typing import Any

from jaxsr import config as configs
from jaxsr import files
from jaxsr.commands import report as failed_images
from jaxsr.commands import trust
from jaxsr.commands.options import Evaluate
from jaxsr.data import bit_depth
from jaxsr.data.shard import Shard, parse
from jaxsr.errors import UserError
from jaxsr.evaluation import conditions_report, evaluate, inputs, text
from jaxsr.inference.model import Model, load
from jaxsr.training import setup


def run(options: Evaluate) -> int:
  """Measure, write and print the results; returns the exit code."""
  bit_depth.check(options.bits, '--bits')
  features = _features(options)
  model = load(
    options.checkpoint,
    scale=options.scale,
    step=options.step,
    width=options.width,
    depth=options.depth,
  )
  part = parse(options.shard) if options.shard else None
  if part and options.conditions:
    raise UserError('--conditions cannot be divided; give it to the last command, without --shard')
  for folder in (options.data, options.lr):
    if folder is not None:
      inputs.check_output(folder, options.output)
  with nullcontext() if part else files.alone_in(options.output):
    summary = _evaluate(options, model, features, part)
  if not summary:
    print(f'part {part} holds no image')
    return 0
  print(text.table(summary))
  if 'conditions' in summary:
    table = conditions_report.table(summary['conditions'], color=sys.stdout.isatty())
    print(table, file=getattr(sys.stdout, 'stream', sys.stdout))  # which takes colors
  trust.print_tables(options)
  return failed_images.failures(summary['failed'], 'left out')


def _evaluate(
  options: Evaluate, model: Model, features: tuple[str, Any, Any] | None, part: Shard | None
) -> dict[str, Any]:
  return evaluate.measure(
    model,
    options,
    lr=options.lr,
    features=features,
    conditions=options.conditions,
    beside=[load(name) for name in options.beside],
    shard=part,
    parts=trust.parts(options),
  )


def _features(options: Evaluate) -> tuple[str, Any, Any] | None:
  if options.features is None:
    return None
  content = configs.base().content[options.features]
  content.update(weights=options.feature_weights, layer=options.feature_layer or content.layer)
  found = setup.load_extractor(options.features, content, 'float32', flag='--feature-weights')
  return f'{options.features}/{content.layer}', *found
