"""Super-resolution of chest radiographs in JAX and Flax.

>>> import jaxsr
>>> import numpy as np
>>> model = jaxsr.load('edsr_x4')
>>> lr = np.full((64, 64), 128, np.uint8)
>>> model.upscale(lr).shape
(256, 256)

For research, not for diagnosis.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from jaxsr.errors import UserError
  from jaxsr.evaluation.evaluate import evaluate
  from jaxsr.inference.images import read, write
  from jaxsr.inference.input_range import check_input
  from jaxsr.inference.model import Model, list_models, load

__version__ = '0.1.0'

# Imported on first use (PEP 562), so that `import jaxsr` does not wait for JAX and Flax.
_MODULES = {
  'Model': 'jaxsr.inference.model',
  'UserError': 'jaxsr.errors',
  'check_input': 'jaxsr.inference.input_range',
  'evaluate': 'jaxsr.evaluation.evaluate',
  'list_models': 'jaxsr.inference.model',
  'load': 'jaxsr.inference.model',
  'read': 'jaxsr.inference.images',
  'write': 'jaxsr.inference.images',
}
__all__ = [
  'Model',
  'UserError',
  '__version__',
  'check_input',
  'evaluate',
  'list_models',
  'load',
  'read',
  'write',
]


def __getattr__(name: str) -> Any:
  if name not in _MODULES:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(import_module(_MODULES[name]), name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return sorted(__all__)
