"""Which functions of jaxsr are checked while the tests run: those whose annotations have arrays.

The option `--jaxtyping-packages` would check every function and dataclass. That takes seconds per
process, most of it for strings and paths, which the static type check sees. Importing this module
replaces the decorator, which must happen before jaxsr is imported.
"""

import inspect
import typing

import jaxtyping

check = jaxtyping.jaxtyped  # decorates all


def has_arrays(annotation):
  """Whether a jaxtyping array is an annotation, or a part of it."""
  if isinstance(annotation, type) and issubclass(annotation, jaxtyping.AbstractArray):
    return True
  parts = annotation if isinstance(annotation, list) else typing.get_args(annotation)
  return any(has_arrays(part) for part in parts)


def annotations_of(target):
  """Returns the annotations of a function, of what a descriptor wraps, or of a dataclass."""
  if inspect.isclass(target):
    target = target.__init__
  elif isinstance(target, property):
    target = target.fget
  function = inspect.unwrap(getattr(target, '__func__', target))
  return getattr(function, '__annotations__', {}).values()


def check_arrays(target=None, **options):
  """Decorate a function or dataclass if it annotates arrays."""
  if target is None:
    return lambda target: check_arrays(target, **options)
  found = any(isinstance(each, str) or has_arrays(each) for each in annotations_of(target))
  return check(target, **options) if found else target


jaxtyping.jaxtyped = check_arrays
