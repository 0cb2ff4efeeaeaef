"""The names of a network's modules in public implementations.

A naming maps a module's path in a state dict to this project's path. Its table has a line for each
kind of module: the path in the state dict, where `#` is a number and `*` a word, and this
project's, where `{1}` is the first number or word, `{1-1}` one less and `{1/2}` half of it.
"""

import re
from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

from jaxsr.models.layers import DIV2K_MEAN

Modules = Set[str]


class Naming(NamedTuple):
  """The names of one implementation.

  Attributes:
    title: The name of the implementation.
    table: Pairs of paths, one per line; see the docstring of the module.
    computed: Rules whose result depends on which modules the file has.
    options: Options that cannot be read from the tensors, such as padding and image range.
    unbiased: A pattern of this project's paths. None of these modules has a bias in that
      implementation; here it is zero.
    dropped: A pattern of tensors that inference does not need.
    bias_range: The divisor of biases: the image range of a network that is homogeneous except for
      its biases.
    mean_range: The image range of a stored mean.
  """

  title: str
  table: str
  computed: Mapping[str, Callable[[tuple[int, ...], Modules], str]] = {}
  options: Mapping[str, Any] = {}
  unbiased: str | None = None
  dropped: str | None = None
  bias_range: float = 1.0
  mean_range: float = 255.0

  def rename(self, module: str, modules: Modules) -> str | None:
    """Returns this project's path of a module, given all `modules` of the file; None if unknown."""
    for theirs, compute in self.computed.items():
      if match := _match(theirs, module):
        return compute(tuple(map(int, match.groups())), modules)
    for line in self.table.split('\n'):
      if line and (match := _match(line.split()[0], module)):
        return _fill(line.split()[1], match)
    return None

  def is_unbiased(self, module: str) -> bool:
    """Whether a module, by this project's path, has no bias in that implementation."""
    return self.unbiased is not None and re.fullmatch(self.unbiased, module) is not None


def _match(pattern: str, module: str) -> re.Match | None:
  regex = re.escape(pattern).replace(r'\#', r'(\d+)').replace(r'\*', r'([^.]+)')
  return re.fullmatch(regex, module)


def _fill(template: str, match: re.Match) -> str:
  def value(field: re.Match) -> str:
    group, sign, number = match[int(field[1])], field[2], field[3]
    if not sign:
      return group
    return str(int(group) // int(number) if sign == '/' else int(group) + int(sign + number))

  return re.sub(r'\{(\d)(?:([-+/])(\d))?\}', value, template)


def _highest(prefix: str, modules: Modules) -> int:
  """Returns the highest number that follows a prefix."""
  found = (re.match(rf'{re.escape(prefix)}(\d+)(\.|$)', module) for module in modules)
  return max(int(match[1]) for match in found if match)


def _fsrcnn(numbers: tuple[int, ...], modules: Modules) -> str:
  """Paths of the convolutions and slopes in the middle: the first shrinks, the last expands."""
  pair, is_slope = divmod(numbers[0], 2)
  last = _highest('mid_part.', modules) // 2
  name = {0: 'shrink', last: 'expand'}.get(pair, f'block_{pair - 1}')
  return f'{name}_slope' if is_slope else name


def _upnet(numbers: tuple[int, ...], modules: Modules) -> str:
  """Paths of UPNet's convolutions, of which the last computes the image."""
  is_last = numbers[0] == _highest('UPNet.', modules)
  return 'tail' if is_last else f'upsampler/conv_{numbers[0] // 2}'


def _oldest_rrdb(numbers: tuple[int, ...], modules: Modules) -> str:
  """Paths of the layers after the trunk: upsampling at 3, 6, ..., then two convolutions."""
  last = _highest('model.', modules)
  ends = {0: 'head', last: 'tail', last - 2: 'detail'}
  return ends.get(numbers[0], f'up_{numbers[0] // 3 - 1}')


def _swinir(numbers: tuple[int, ...], modules: Modules) -> str:
  """Paths of the upsampling layers; the light network's only one computes the image."""
  return f'upsampler/conv_{numbers[0] // 2}' if 'conv_last' in modules else 'tail'


def _last_of_vdsr(numbers: tuple[int, ...], modules: Modules) -> str:
  return f'conv_{len(modules) - 1}'


OURS = Naming('this project', '')  # paths with dots or slashes: see `state_dict`

_RANGE = {'image_range': 255.0, 'mean': DIV2K_MEAN}
_EDSR_PYTORCH = """
head.0      head
tail.0.#    upsampler/conv_{1/2}
tail.1      tail
body.#      body
sub_mean    sub_mean
add_mean    add_mean
"""
_ENDS = """
conv_first  head
conv_last   tail
"""
_BASICSR = (
  _ENDS
  + """
conv_after_body  body
upsample.#       upsampler/conv_{1/2}
"""
)

_RLFN = """
conv_1              head
conv_2              body
block_#.c5          block_{1-1}/mix
block_#.c#_r        block_{1-1}/conv_{2-1}
block_#.esa.conv1   block_{1-1}/attention/down
block_#.esa.conv2   block_{1-1}/attention/stride
block_#.esa.conv3   block_{1-1}/attention/far
block_#.esa.conv4   block_{1-1}/attention/up
block_#.esa.conv_f  block_{1-1}/attention/near
upsampler.0         tail
"""
_RLFN_2022 = (
  _RLFN.replace('conv_1 ', 'fea_conv ').replace('conv_2 ', 'LR_conv ').replace('block_#.', 'B#.')
)
_SPAN = """
conv_1.sk             head/skip
conv_1.conv.0         head/expand
conv_1.conv.1         head/conv
conv_1.conv.2         head/project
conv_2.sk             body/skip
conv_2.conv.0         body/expand
conv_2.conv.1         body/conv
conv_2.conv.2         body/project
block_#.c#_r.sk       block_{1-1}/conv_{2-1}/skip
block_#.c#_r.conv.0   block_{1-1}/conv_{2-1}/expand
block_#.c#_r.conv.1   block_{1-1}/conv_{2-1}/conv
block_#.c#_r.conv.2   block_{1-1}/conv_{2-1}/project
conv_cat              join
upsampler.0           tail
"""
_LEFTTHOMAS = """
block1.0         head
block1.1         prelu
block7.0         body
block8.#.conv    upsampler_{1}
block8.#.prelu   prelu_{1}
block8.#         tail
block#.conv#     block_{1-2}/conv_{2-1}
block#.bn#       block_{1-2}/norm_{2-1}
block#.prelu     block_{1-2}/prelu
"""

NAMINGS: dict[str, tuple[Naming, ...]] = {
  'edsr': (
    Naming(
      'EDSR-PyTorch',
      _EDSR_PYTORCH + 'body.#.body.# block_{1}/conv_{2/2}',
      options=_RANGE,
    ),
    Naming('BasicSR', _BASICSR + 'body.#.conv# block_{1}/conv_{2-1}', options=_RANGE),
    Naming(
      'mmagic',
      _ENDS
      + """body.#.conv#              block_{1}/conv_{2-1}
conv_after_body           body
upsample.#.upsample_conv  upsampler/conv_{1}
""",
      options={'mean': DIV2K_MEAN},
    ),
  ),
  'fsrcnn': (
    Naming(
      'yjn870',
      """
first_part.0  head
first_part.1  head_slope
last_part     tail
""",
      computed={'mid_part.#': _fsrcnn},
    ),
    Naming(
      'Lornatang',
      """
feature_extraction.0  head
feature_extraction.1  head_slope
shrink.0              shrink
shrink.1              shrink_slope
expand.0              expand
expand.1              expand_slope
deconv                tail
""",
      computed={'map.#': lambda n, _: f'block_{n[0] // 2}' + ('_slope' if n[0] % 2 else '')},
    ),
  ),
  'msrresnet': (
    Naming(
      'BasicSR',
      _ENDS
      + """body.#.conv#  block_{1}/conv_{2-1}
upconv#       upsampler_{1-1}
conv_hr       detail
""",
    ),
  ),
  'rcan': (
    Naming(
      'RCAN and EDSR-PyTorch',
      _EDSR_PYTORCH
      + """
body.#.body.#.body.3.conv_du.0  group_{1}/block_{2}/attention/down
body.#.body.#.body.3.conv_du.2  group_{1}/block_{2}/attention/up
body.#.body.#.body.#            group_{1}/block_{2}/conv_{3/2}
body.#.body.#                   group_{1}/conv
""",
      options=_RANGE,
    ),
    Naming(
      'BasicSR',
      _BASICSR
      + """
body.#.residual_group.#.rcab.#              group_{1}/block_{2}/conv_{3/2}
body.#.residual_group.#.rcab.3.attention.1  group_{1}/block_{2}/attention/down
body.#.residual_group.#.rcab.3.attention.3  group_{1}/block_{2}/attention/up
body.#.conv                                 group_{1}/conv
""",
      options=_RANGE,
    ),
  ),
  'rdn': (
    Naming(
      'yjn870 and mmagic',
      """
sfe#                 head_{1-1}
rdbs.#.layers.#.conv block_{1}/conv_{2}
rdbs.#.lff           block_{1}/fusion
gff.#                fusion_{1}
upscale.#            upsampler/conv_{1/2}
output               tail
""",
    ),
    Naming(
      'EDSR-PyTorch',
      """
SFENet#                 head_{1-1}
RDBs.#.convs.#.conv.0   block_{1}/conv_{2}
RDBs.#.LFF              block_{1}/fusion
GFF.#                   fusion_{1}
""",
      computed={'UPNet.#': _upnet},
      bias_range=255.0,
    ),
    Naming(
      'Lornatang',
      """
conv3                            tail
conv#                            head_{1-1}
trunk.#.rdb.#.rb.0               block_{1}/conv_{2}
trunk.#.local_feature_fusion     block_{1}/fusion
global_feature_fusion.#          fusion_{1}
upsampling.#.upsample_block.0    upsampler/conv_{1}
""",
    ),
  ),
  'rlfn': (
    Naming(
      'RLFN and NTIRE',
      _RLFN,
      options={'image_range': 255.0},
    ),
    Naming(
      'LightRLFN',  # has RLFN's tensor names; only a trial tells them apart
      _RLFN,
      options={'image_range': 1.0, 'bilinear_skip': True},
    ),
    Naming('RLFN of NTIRE 2022', _RLFN_2022, options={'image_range': 255.0}),
  ),
  'rrdb': (
    Naming(
      'BasicSR and mmagic',
      _ENDS
      + """body.#.rdb#.conv#   block_{1}/dense_{2-1}/conv_{3-1}
conv_body           body
conv_up#            up_{1-1}
conv_hr             detail
""",
    ),
    Naming(
      'ESRGAN',
      _ENDS
      + """RRDB_trunk.#.RDB#.conv#   block_{1}/dense_{2-1}/conv_{3-1}
trunk_conv                body
upconv#                   up_{1-1}
HRconv                    detail
""",
    ),
    Naming(
      'ESRGAN, oldest, and KAIR',
      """
model.1.sub.#.RDB#.conv#.0  block_{1}/dense_{2-1}/conv_{3-1}
model.1.sub.#.RDB#.conv#    block_{1}/dense_{2-1}/conv_{3-1}
model.1.sub.#               body
""",
      computed={'model.#': _oldest_rrdb},
    ),
  ),
  'span': (
    Naming(
      'SPAN',
      _SPAN,
      options=_RANGE,
      dropped=r'.*\.eval_conv\..*',  # may be stale: recomputed from the others before use
    ),
    Naming(
      'neosr, without normalization',  # recognized by the empty buffer `no_norm`
      _SPAN,
      options={'image_range': 1.0, 'mean': (0.0, 0.0, 0.0)},
      dropped=r'no_norm|.*\.eval_conv\..*',
    ),
    Naming(
      'SPAN, folded',
      """
conv_1.eval_conv        head
conv_2.eval_conv        body
block_#.c#_r.eval_conv  block_{1-1}/conv_{2-1}
conv_cat                join
upsampler.0             tail
""",
      options=_RANGE,
    ),
  ),
  'srcnn': (
    Naming("SRCNN's layers", 'conv# conv_{1-1}'),
    Naming(
      'Lornatang',
      """
features.0      conv_0
map.0           conv_1
reconstruction  conv_2
""",
      options={'padding': 'zeros'},
    ),
  ),
  'srdensenet': (
    Naming(
      'yjn870',
      """
conv.conv                      head
dense_blocks.#.block.#.conv    block_{1}/conv_{2}
bottleneck.0                   bottleneck
deconv.#                       deconv_{1/2}
reconstruction                 tail
""",
    ),
    Naming(
      'twtygqyy',
      """
lowlevel               head
relu                   prelu
denseblock#.0.conv#    block_{1-1}/conv_{2-1}
denseblock#.0.relu     block_{1-1}/prelu
bottleneck             bottleneck
reconstruction         tail
""",
      computed={'deconv.#': lambda n, _: f'{"prelu" if n[0] % 2 else "deconv"}_{n[0] // 2}'},
    ),
  ),
  'srresnet': (
    Naming(
      'sgrvinod',
      """
conv_block1.conv_block.0                      head
conv_block1.conv_block.1                      prelu
residual_blocks.#.conv_block#.conv_block.0    block_{1}/conv_{2-1}
residual_blocks.#.conv_block#.conv_block.1    block_{1}/norm_{2-1}
residual_blocks.#.conv_block1.conv_block.2    block_{1}/prelu
conv_block2.conv_block.0                      body
conv_block2.conv_block.1                      norm
subpixel_convolutional_blocks.#.conv          upsampler_{1}
subpixel_convolutional_blocks.#.prelu         prelu_{1}
conv_block3.conv_block.0                      tail
""",
      options={'tanh': True, 'mean': (0.485, 0.456, 0.406), 'deviation': (0.229, 0.224, 0.225)},
    ),
    Naming(
      'Lornatang',
      """
conv1.0                         head
conv1.1                         prelu
conv2.0                         body
conv2.1                         norm
conv3                           tail
conv_block1.0                   head
conv_block1.1                   prelu
conv_block2.0                   body
conv_block2.1                   norm
conv_block3                     tail
trunk.#.rcb.0                   block_{1}/conv_0
trunk.#.rcb.1                   block_{1}/norm_0
trunk.#.rcb.2                   block_{1}/prelu
trunk.#.rcb.3                   block_{1}/conv_1
trunk.#.rcb.4                   block_{1}/norm_1
upsampling.#.upsample_block.0   upsampler_{1}
upsampling.#.upsample_block.2   prelu_{1}
""",
      unbiased=r'block_\d+/conv_[01]|body',
    ),
    Naming(
      'leftthomas',
      _LEFTTHOMAS + 'block7.1 norm',
      options={'tanh': True},
    ),
    Naming(
      'leftthomas, as published',  # the weights are older than the code
      _LEFTTHOMAS + 'block7.1 body_prelu',
      options={'tanh': True, 'body_norm': False},
    ),
  ),
  'swift_srgan': (
    Naming(
      'Swift-SRGAN',
      """
initial.cnn.*             head/{1}
initial.act               prelu
residual.#.block#.cnn.*   block_{1}/conv_{2-1}/{3}
residual.#.block#.bn      block_{1}/norm_{2-1}
residual.#.block1.act     block_{1}/prelu
residual.#.block2.act     block_{1}/unused
convblock.cnn.*           body/{1}
convblock.bn              norm
convblock.act             unused
upsampler.#.conv.*        upsampler_{1}/{2}
upsampler.#.act           prelu_{1}
final_conv.*              tail/{1}
""",
    ),
  ),
  'swinir': (
    Naming(
      'SwinIR and BasicSR',
      _ENDS
      + """patch_embed.norm                               head_norm
layers.#.residual_group.blocks.#.norm#         group_{1}/block_{2}/norm_{3-1}
layers.#.residual_group.blocks.#.attn          group_{1}/block_{2}/attention
layers.#.residual_group.blocks.#.attn.qkv      group_{1}/block_{2}/attention/qkv
layers.#.residual_group.blocks.#.attn.proj     group_{1}/block_{2}/attention/project
layers.#.residual_group.blocks.#.mlp.fc#       group_{1}/block_{2}/mlp_{3-1}
layers.#.conv                                  group_{1}/conv
norm                                           norm
conv_after_body                                body
conv_before_upsample.0                         before_upsampler
conv_up#                                       up_{1-1}
conv_hr                                        detail
""",
      computed={'upsample.#': _swinir},
      dropped=r'.*\.(relative_position_index|attn_mask)',
    ),
  ),
  'vdsr': (
    Naming(
      'twtygqyy',
      """
input                   conv_0
residual_layer.#.conv   conv_{1+1}
""",
      computed={'output': _last_of_vdsr},
      unbiased='.*',
    ),
    Naming(
      'Lornatang',
      """
conv1.0        conv_0
trunk.#.conv   conv_{1+1}
""",
      computed={'conv2': _last_of_vdsr},
      unbiased='.*',
    ),
    Naming(
      'EDSR-PyTorch',
      """
body.#.0  conv_{1}
sub_mean  sub_mean
add_mean  add_mean
""",
      options={'mean': DIV2K_MEAN},
      unbiased='.*',
      bias_range=255.0,
    ),
    Naming(
      'torchSR',
      """
body.#    conv_{1/2}
sub_mean  sub_mean
add_mean  add_mean
""",
      options={'mean': DIV2K_MEAN},
      mean_range=1.0,
    ),
  ),
}
