"""Public networks with random weights, compared with the networks read from their state dicts.

The networks in torch_reference have the names of the public code; each tensor is checked to affect
the output. References compute in float64; the tolerance is 3e-5 of the largest value.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import interop, models, ops
from jaxsr.interop.naming import NAMINGS
from models.small import quick
from torch_reference import dense, light, residual
from torch_reference import swinir as swin
from torch_reference.parts import fill, torch

TOLERANCE = 3e-5
SIZE = {'rlfn': (17, 22), 'rrdb': (8, 6), 'swinir': (6, 9)}
UNUSED = {  # tensors in files that are not used
  *('num_batches_tracked', 'attn_mask', 'relative_position_index', 'eval_conv', 'no_norm'),
  *('block2.act', 'convblock.act', 'sub_mean.weight', 'add_mean.weight'),
}


class Case(NamedTuple):
  model: str
  naming: str
  make: object  # a function of the scale or, if the input is already upsampled, of the channels
  scale: int = 2
  channels: int = 3
  image_range: float = 1.0  # of the public code's images
  bias: float = 0.2
  enlarged: bool = False
  options: dict | None = None
  forced: bool = False  # its tensor names are those of another network

  def input(self, lr):
    if self.enlarged:
      lr = np.asarray(ops.upsample(jnp.asarray(lr), self.scale, boundary='mirror'))
    return torch.tensor(np.moveaxis(lr, -1, 1).copy(), dtype=torch.float64) * self.image_range


WIDE_RANGE = {'image_range': 255.0, 'bias': 20.0}
GRAY = {'channels': 1}
ZEROS = {'padding': 'zeros'}  # yjn870's; the authors' code replicates
FROM_BICUBIC = {'enlarged': True, 'scale': 3}
LORNATANG_2 = partial(
  residual.lornatang_srresnet, ends=('conv_block1', 'conv_block2', 'conv_block3')
)
LEFTTHOMAS_PUBLISHED = partial(residual.leftthomas, published=True)
CASES = [
  Case('edsr', 'EDSR-PyTorch', residual.edsr, scale=4, **WIDE_RANGE),
  Case('edsr', 'EDSR-PyTorch', residual.edsr, scale=3, **WIDE_RANGE),
  Case('edsr', 'BasicSR', residual.basicsr_edsr, scale=4, bias=20.0),
  Case('edsr', 'mmagic', residual.mmagic_edsr, scale=4),
  Case('fsrcnn', 'yjn870', light.fsrcnn, scale=3, **GRAY),
  Case('fsrcnn', 'Lornatang', light.fsrcnn_lornatang, scale=2, **GRAY),
  Case('msrresnet', 'BasicSR', residual.msrresnet, scale=4),
  Case('msrresnet', 'BasicSR', residual.msrresnet, scale=3),
  Case('rcan', 'RCAN and EDSR-PyTorch', residual.rcan, scale=3, **WIDE_RANGE),
  Case('rcan', 'BasicSR', residual.basicsr_rcan, scale=4, bias=20.0),
  *(Case('rdn', 'yjn870 and mmagic', dense.rdn_yjn870, scale=scale) for scale in (2, 3, 4)),
  Case('rdn', 'yjn870 and mmagic', partial(dense.rdn_yjn870, channels=1), scale=3, **GRAY),
  *(
    Case('rdn', 'EDSR-PyTorch', dense.rdn_edsr_pytorch, scale=scale, **WIDE_RANGE)
    for scale in (3, 4)
  ),
  Case('rdn', 'Lornatang', dense.rdn_lornatang, scale=4),
  Case('rlfn', 'RLFN and NTIRE', light.rlfn, scale=4, **WIDE_RANGE),
  Case(
    'rlfn',
    'LightRLFN',
    partial(light.rlfn, bilinear=True),
    scale=4,
    forced=True,
  ),
  Case(
    'rlfn',
    'RLFN of NTIRE 2022',
    partial(light.rlfn, names=('fea_conv', 'B', 'LR_conv')),
    scale=4,
    **WIDE_RANGE,
  ),
  Case('rrdb', 'ESRGAN, oldest, and KAIR', dense.rrdb_kair, scale=4, bias=1.0),
  Case('rrdb', 'BasicSR and mmagic', dense.rrdb_unshuffled, scale=2, bias=1.0),
  Case('rrdb', 'BasicSR and mmagic', dense.rrdb_new, scale=4, bias=1.0),
  Case('rrdb', 'ESRGAN', dense.rrdb_old, scale=4, bias=1.0),
  *(
    Case('rrdb', 'ESRGAN, oldest, and KAIR', dense.rrdb_oldest, scale=scale, bias=1.0)
    for scale in (2, 3, 4)
  ),
  Case('span', 'SPAN', light.span, scale=4),
  Case('span', 'SPAN, folded', light.span_slim, scale=2),
  Case('span', 'neosr, without normalization', light.span_neosr, scale=2),
  Case('srcnn', "SRCNN's layers", light.srcnn, **FROM_BICUBIC, **GRAY, options=ZEROS),
  Case('srcnn', "SRCNN's layers", light.srcnn, **FROM_BICUBIC, options=ZEROS),
  Case('srcnn', "SRCNN's layers", partial(light.srcnn, padding_mode='replicate'), **FROM_BICUBIC),
  Case('srcnn', 'Lornatang', light.srcnn_lornatang, **FROM_BICUBIC, **GRAY),
  Case('srdensenet', 'yjn870', dense.srdensenet_yjn870, scale=4, **GRAY),
  Case('srdensenet', 'twtygqyy', dense.srdensenet_twtygqyy, scale=4, **GRAY),
  Case('srresnet', 'sgrvinod', residual.sgrvinod, scale=4),
  Case('srresnet', 'Lornatang', residual.lornatang_srresnet, scale=2),
  Case('srresnet', 'Lornatang', LORNATANG_2, scale=4),
  Case('srresnet', 'leftthomas', residual.leftthomas, scale=4),
  Case(
    'srresnet', 'leftthomas, as published', partial(residual.leftthomas, published=True), scale=4
  ),
  Case('swift_srgan', 'Swift-SRGAN', residual.swift_srgan, scale=4),
  Case('swinir', 'SwinIR and BasicSR', swin.swinir, scale=4),
  Case('swinir', 'SwinIR and BasicSR', partial(swin.swinir, light=True), scale=3),
  Case('swinir', 'SwinIR and BasicSR', partial(swin.swinir, channels=1), scale=2, **GRAY),
  Case('swinir', 'SwinIR and BasicSR', partial(swin.swinir, nearest=True), scale=4),
  Case('vdsr', 'EDSR-PyTorch', light.vdsr_shifted, **FROM_BICUBIC, **WIDE_RANGE),
  Case('vdsr', 'torchSR', partial(light.vdsr_shifted, image_range=1.0, bias=True), **FROM_BICUBIC),
  Case('vdsr', 'twtygqyy', light.vdsr, **FROM_BICUBIC, **GRAY),
  Case('vdsr', 'twtygqyy', light.vdsr, **FROM_BICUBIC),
  Case('vdsr', 'Lornatang', light.vdsr_lornatang, **FROM_BICUBIC, **GRAY),
]


def test_every_naming_has_a_case():
  covered = {(case.model, case.naming) for case in CASES}
  assert covered == {(model, naming.title) for model in NAMINGS for naming in NAMINGS[model]}


@pytest.mark.parametrize(
  'case', CASES, ids=lambda case: f'{case.model}-{case.naming}-x{case.scale}'
)
def test_what_comes_out(case, rng):
  twin = fill(case.make(case.channels if case.enlarged else case.scale), bias=case.bias)
  tensors = {name: x.numpy() for name, x in twin.state_dict().items()}
  lr = rng.random((1, *SIZE.get(case.model, (7, 8)), case.channels), dtype=np.float32)
  theirs = run(twin.double(), case, lr)
  naming = case.naming if case.forced else None
  found = interop.read(
    tensors, model=case.model, scale=case.scale, options=case.options, naming=naming
  )
  assert (found.naming, found.layout, found.channels) == (case.naming, 'OIHW', case.channels)
  network = models.build(case.model, found.options, scale=case.scale, channels=case.channels)
  ours = quick(lambda v, x: network.apply(v, x, train=False))(found.variables, lr)
  largest = np.abs(theirs).max()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * largest)
  for name, change in changes(twin, case, lr, theirs):
    assert change > 2 * TOLERANCE * largest, f'{name} hardly matters: {change / largest:.1e}'


def run(twin, case, lr):
  with torch.no_grad():
    y = twin(case.input(lr)) / case.image_range
  return np.moveaxis(y.numpy(), 1, -1)


def changes(twin, case, lr, before):
  """Yields each tensor's name, and the largest change of the output if that tensor is reversed."""
  for name, x in twin.state_dict().items():
    if any(part in name for part in UNUSED):
      continue
    kept = x.clone()
    x.copy_(x.flatten().flip(0).reshape(x.shape) if x.numel() > 1 else 2 * x)
    yield name, np.abs(run(twin, case, lr) - before).max()
    x.copy_(kept)
