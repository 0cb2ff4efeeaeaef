"""The doubtful tiles of the films on a report page, of models that have a calibration."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool

from jaxsr.errors import UserError, warn
from jaxsr.evaluation.evaluator import Evaluator
from jaxsr.inference import package
from jaxsr.inference.model import Model

NOTE = (
  'Doubt marks tiles of 16x16 pixels whose error may be large, by the calibration of the model: '
  'it needs no original.'
)


def masks(
  model: Model, evaluator: Evaluator, indices: Mapping[str, int]
) -> dict[str, Bool[np.ndarray, 'sh sw']]:
  """Returns the doubtful pixels of upscaled images; nothing if the model has no calibration.

  A calibration that is not valid for the model, such as that of an earlier step, is warned of.

  Args:
    model: the model.
    evaluator: prepares the images.
    indices: the indices of images by the names of the results.
  """
  if model.folder is None or not (model.folder / package.CALIBRATION).is_file():
    return {}
  found = {}
  for name, index in indices.items():
    pair = evaluator.pair(index)
    kind = np.uint8 if pair.levels == 255 else np.uint16
    try:
      found[name] = model.confidence(np.rint(pair.lr * pair.levels).astype(kind)).doubt
    except UserError as error:
      warn(f'doubt is not shown: {error}')
      return {}
  return found
