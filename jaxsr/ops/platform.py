"""Choose between the implementations of an operation for CPUs and for other devices."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax import lax

# A context of JAX's, since its value is part of the key of every cache of traces: functions that
# were traced before are traced again inside the context.
_plain: Any = jax.make_user_context(False)


def plain() -> AbstractContextManager[None]:
  """Returns a context in which every operation is traced as XLA's own, for all platforms.

  The computation then has no branches by platform, and the sizes of images may be symbolic, as an
  export to another format needs. Programs that are traced outside are not affected.
  """
  return _plain(True)


def is_plain() -> bool:
  """Whether the code runs inside `plain()`."""
  return _plain.value


def by_platform(*args: Any, cpu: Callable[..., Any], default: Callable[..., Any]) -> Any:
  """Apply `cpu` on CPUs and `default` on other devices, or everywhere inside `plain()`."""
  if is_plain():
    return default(*args)
  return lax.platform_dependent(*args, cpu=cpu, default=default)
