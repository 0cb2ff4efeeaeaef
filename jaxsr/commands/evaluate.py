"""`jaxsr evaluate`: measure a network on full-size images."""

import sys
from typing import Any

from jaxsr import config as configs
from jaxsr.commands import report as failed_images
from jaxsr.commands.options import Evaluate
from jaxsr.evaluation import conditions_report, report
from jaxsr.inference.model import load
from jaxsr.training import setup


def run(options: Evaluate) -> int:
  """Measure, write and print the results; return the exit code."""
  features = _features(options)
  model = load(
    options.checkpoint,
    scale=options.scale,
    step=options.step,
    width=options.width,
    depth=options.depth,
  )
  summary = report.evaluate(
    model,
    options.data,
    output=options.output,
    protocol=options.protocol,
    split=options.split,
    bits=options.bits,
    tables=options.tables,
    features=features,
    ensemble=options.ensemble,
    conditions=options.conditions,
    beside=[load(name) for name in options.beside],
  )
  print(report.table(summary))
  if options.conditions:
    print(conditions_report.table(summary['conditions'], color=sys.stdout.isatty()))
  return failed_images.failures(summary['failed'], 'left out')


def _features(options: Evaluate) -> tuple[str, Any, Any] | None:
  if options.features is None:
    return None
  content = configs.base().content[options.features]
  content.update(weights=options.feature_weights, layer=options.feature_layer or content.layer)
  found = setup.load_extractor(options.features, content, 'float32', flag='--feature-weights')
  return f'{options.features}/{content.layer}', *found
