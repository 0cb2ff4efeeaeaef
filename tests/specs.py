"""The one table of trainable networks that parametrized tests use.

A network is a file in `jaxsr/models`, a line in `models.MODELS` and a spec here.
"""

from typing import Any, NamedTuple

from jaxsr import models

RCAN = 15_592_379 - 24  # public counts hold two fixed 1x1 convolutions that shift by the mean
RCAN_ATTENTION = 200 * (64 * 4 + 4 + 4 * 64 + 64)


class Spec(NamedTuple):
  """The facts about a network that tests need.

  Attributes:
    small: Options of a network that is quick to compile and has all kinds of layers.
    sliceable: Options of a network that is cut to half its width and depth.
    counts: Published parameter counts at scale 4, as (channels, options, count).
    reference: The test module in `tests/models` that compares the network with PyTorch.
  """

  small: dict[str, Any]
  sliceable: dict[str, Any]
  counts: tuple[tuple[int, dict[str, Any], int], ...]
  reference: str


SPECS = {
  'edsr': Spec(
    small={'features': 8, 'blocks': 2},
    sliceable={'features': 16, 'blocks': 4},
    counts=((3, {}, 1_517_571),),
    reference='test_references_classic',
  ),
  'fsrcnn': Spec(
    small={'features': 8, 'shrunk': 4, 'blocks': 2},
    sliceable={'features': 24, 'shrunk': 16},
    counts=(
      (1, {}, 12_464 + 209 + 136),  # the paper's weights; biases; slopes of PReLU
      (3, {}, 24_683),
    ),
    reference='test_references',
  ),
  'msrresnet': Spec(
    small={'features': 8, 'blocks': 2},
    sliceable={'features': 16, 'blocks': 4},
    counts=((3, {}, 1_517_571),),
    reference='test_references',
  ),
  'rcan': Spec(
    small={'features': 8, 'groups': 2, 'blocks': 2, 'reduction': 4},
    sliceable={'features': 16, 'groups': 3, 'blocks': 3, 'reduction': 4},
    counts=(
      (1, {}, 15_590_049),
      (3, {}, RCAN),
      (3, {'attention': False}, RCAN - RCAN_ATTENTION),
    ),
    reference='test_references',
  ),
  'rdn': Spec(
    small={'features': 8, 'blocks': 2, 'layers': 2, 'growth': 4},
    sliceable={'features': 16, 'blocks': 4, 'layers': 3, 'growth': 16},
    counts=(
      (1, {}, 22_268_801),
      (1, {'blocks': 5, 'layers': 3, 'features': 32, 'growth': 32}, 395_841),
      (1, {'remat': True}, 22_268_801),
      (3, {}, 22_271_107),
    ),
    reference='test_references_dense_and_gan',
  ),
  'rlfn': Spec(
    small={'features': 8, 'blocks': 2, 'attention': 4},
    sliceable={'features': 24, 'blocks': 3},
    counts=(
      (3, {}, 543_740),  # 543 K
      (3, {'features': 48}, 470_208),  # RLFN-S: 470 K
      (3, {'features': 46, 'middle': 48, 'blocks': 4}, 317_218),  # NTIRE 2022: 0.317 M
    ),
    reference='test_references',
  ),
  'rrdb': Spec(
    small={'features': 8, 'growth': 4, 'blocks': 2},
    sliceable={'features': 16, 'blocks': 3, 'growth': 16},
    counts=((3, {}, 16_697_987),),
    reference='test_references',
  ),
  'span': Spec(
    small={'features': 8, 'blocks': 2},
    sliceable={'features': 16, 'blocks': 4},
    counts=(
      (3, {'folded': True}, 426_288),  # the paper's 426 K
      (3, {'folded': True, 'features': 28}, 150_688),  # NTIRE 2024: 0.151 M
    ),
    reference='test_references',
  ),
  'srcnn': Spec(
    small={'features': (8, 4)},
    sliceable={'features': (32, 16)},
    counts=(
      (1, {'kernels': (9, 1, 5)}, 8_129),
      (1, {'kernels': (9, 3, 5)}, 24_513),
      (1, {}, 57_281),
      (3, {}, 69_251),
    ),
    reference='test_references_classic',
  ),
  'srdensenet': Spec(
    small={'growth': 4, 'blocks': 2, 'layers': 3, 'bottleneck': 8},
    sliceable={'blocks': 4, 'layers': 3, 'growth': 16},
    counts=(
      (1, {}, 2_659_585),
      (1, {'variant': 'prelu'}, 2_003_467),
    ),
    reference='test_references_dense_and_gan',
  ),
  'srresnet': Spec(
    small={'features': 8, 'blocks': 2},
    sliceable={'features': 16, 'blocks': 4},
    counts=((3, {}, 1_549_462),),
    reference='test_references_dense_and_gan',
  ),
  'swift_srgan': Spec(
    small={'features': 8, 'blocks': 2},
    sliceable={'features': 16, 'blocks': 4},
    counts=(
      (1, {}, 200_787),
      (3, {}, 201_209),
    ),
    reference='test_references_dense_and_gan',
  ),
  'swinir': Spec(
    small={'features': 12, 'depths': (2, 2), 'heads': 2, 'window': 4, 'tail_features': 8},
    sliceable={'features': 48, 'depths': (2, 4)},
    counts=((3, {}, 11_900_199),),
    reference='test_references',
  ),
  'vdsr': Spec(
    small={'features': 8, 'blocks': 3},
    sliceable={'features': 16, 'blocks': 6},
    counts=((1, {}, 664_704 + 1_217),),
    reference='test_references_classic',
  ),
}


def missing(specs: dict[str, Spec] = SPECS) -> list[str]:
  """Returns what each network without a complete spec lacks, one line per network."""
  lines = [
    f'{name}: no Spec in tests/specs.py'
    for name, network in models.MODELS.items()
    if network.trainable and name not in specs
  ]
  for name, spec in specs.items():
    empty = [field for field, value in spec._asdict().items() if not value]
    if empty:
      lines.append(f'{name}: its Spec in tests/specs.py lacks {", ".join(empty)}')
  return lines
