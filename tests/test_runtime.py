import threading

import pytest

from jaxsr import runtime

PATIENCE = 60.0  # seconds, which pass only where something is broken


def test_results_come_in_order_however_long_each_takes():
  second_is_done = threading.Event()

  def do(i):
    if i == 0:
      assert second_is_done.wait(PATIENCE)
    if i == 1:
      second_is_done.set()
    return i * i

  assert list(runtime.prefetch_map(do, range(9), threads=2)) == [i * i for i in range(9)]


def test_no_more_is_begun_than_is_wanted():
  begun = []
  results = runtime.prefetch_map(begun.append, range(100), threads=2)
  for _ in range(3):
    next(results)
  results.close()
  assert 3 <= len(begun) <= 3 + 2 * 2


def test_an_error_comes_at_its_turn_and_ends_it():
  begun = []

  def do(i):
    begun.append(i)
    if i == 3:
      raise ValueError('the third')
    return i

  results = runtime.prefetch_map(do, range(100), threads=1)
  assert [next(results) for _ in range(3)] == [0, 1, 2]
  with pytest.raises(ValueError, match='the third'):
    next(results)
  assert len(begun) < 10
