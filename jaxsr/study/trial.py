"""One trial of a study in its own process: train, then measure on the validation images.

python -m jaxsr.study.trial trials/NAME/trial.json trials/NAME IMAGES [CHECKPOINT]

With the checkpoint of a trained teacher, it is only measured.
"""

import json
import os
import sys
from pathlib import Path

from ml_collections import ConfigDict

from jaxsr import runtime
from jaxsr.config import Config, to_dict
from jaxsr.config import copy as copy_config
from jaxsr.data import sources
from jaxsr.errors import UserError
from jaxsr.evaluation import evaluator
from jaxsr.files import digest_json, write_json
from jaxsr.inference.model import load
from jaxsr.study import RESULT
from jaxsr.training.train import train


def main(described: Path, folder: Path, films: int, given: str = '') -> int:
  """Run the trial; returns the exit code of the training."""
  parent = os.getppid()
  runtime.die_with_parent()  # if the study is killed, so is the trial
  if os.getppid() != parent:
    return 1
  config: Config = ConfigDict(json.loads(described.read_text(encoding='utf-8')))
  try:
    if not given and (code := train(config, folder)):
      return code
    summary = measure(config, given or str(folder), films)
    found = {'summary': summary, 'films': films, 'config': to_dict(config)}
    write_json(folder / RESULT, found | {'sum': digest_json(found)})
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  return 0


def measure(config: Config, checkpoint: str, films: int) -> evaluator.Figures:
  """Measure a checkpoint on validation images (0: all); raises UserError if all are unusable."""
  full = copy_config(config)
  full.data.val_count = films
  source = sources.validation(full, minimum=evaluator.min_size(full.scale))
  model = load(checkpoint)
  return evaluator.measure(model.network, model.variables, source, scale=model.scale)


if __name__ == '__main__':
  sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:5]))
