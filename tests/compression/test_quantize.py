import numpy as np

from jaxsr.compression import quantize


def test_kernels_are_rounded_to_half_a_step_and_vectors_stay(rng):
  tensors = {
    'a/kernel': rng.standard_normal((3, 3, 4, 5)).astype(np.float32),
    'a/bias': rng.standard_normal(5).astype(np.float32),
    'dead/kernel': np.zeros((1, 1, 2, 2), np.float32),
  }
  small = quantize.quantize(tensors)
  assert small['a/kernel'].dtype == np.int8 and np.abs(small['a/kernel']).max() == 127
  found = quantize.restore(small)
  assert found.keys() == tensors.keys()
  step = np.abs(tensors['a/kernel']).max(axis=(0, 1, 2)) / 127
  assert (np.abs(found['a/kernel'] - tensors['a/kernel']) <= step / 2 + 1e-7).all()
  np.testing.assert_array_equal(found['a/bias'], tensors['a/bias'])
  np.testing.assert_array_equal(found['dead/kernel'], 0)
