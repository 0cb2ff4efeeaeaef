"""Functions and dataclasses whose annotations have arrays are checked while the tests run."""

import dataclasses
from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Float, UInt8

from jaxsr.ops import per_channel
from shapes import check_arrays, has_arrays

Image = UInt8[np.ndarray, 'h w c']


@dataclasses.dataclass
class Film:
  image: Image


def inverted(image: Image | None) -> Image:
  return 255 - image


def named(name: str) -> str:
  return name


def test_the_package_is_checked():
  per_channel(np.zeros(3, np.float32))
  with pytest.raises(jaxtyping.TypeCheckError):
    per_channel(np.zeros((3, 3), np.float32))


def test_functions_and_dataclasses_with_arrays_are_decorated_and_others_are_not():
  check = check_arrays(typechecker=beartype)
  assert check(named) is named
  assert check(inverted)(np.zeros((2, 3, 1), np.uint8)).shape == (2, 3, 1)
  for target in (check(inverted), check(staticmethod(inverted)).__func__, check(Film)):
    with pytest.raises(jaxtyping.TypeCheckError):
      target(np.zeros((2, 3), np.uint8))


def test_arrays_are_found_inside_other_types():
  assert has_arrays(dict[str, Image]) and has_arrays(Callable[[Float[np.ndarray, 'b']], int])
  assert not has_arrays(dict[str, int]) and not has_arrays(Callable[[np.ndarray], None])
