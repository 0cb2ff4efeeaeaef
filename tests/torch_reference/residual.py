"""Residual networks as public PyTorch code names and computes them."""

from torch_reference.parts import (
  DIV2K,
  FLICKR2K,
  IMAGENET,
  F,
  Net,
  conv,
  each,
  image_mean,
  mean_shift,
  seq,
  shuffles,
  stages,
  tn,
  torch,
)

WIDE = 8


def edsr_pytorch(scale, block, count=2, mean=DIV2K):
  """sanghyun-son/EDSR-PyTorch, src/model/edsr.py and rcan.py; images in [0, 255]."""

  def forward(net, x):
    x = net.head(net.sub_mean(x))
    return net.add_mean(net.tail(x + net.body(x)))

  return Net(
    forward,
    sub_mean=mean_shift(-1, mean),
    add_mean=mean_shift(1, mean),
    head=seq(conv(3, WIDE)),
    body=seq(*each(count, block), conv(WIDE, WIDE)),
    tail=seq(seq(*shuffles(scale, WIDE)), conv(WIDE, 3)),
  )


def body_of(*layers):
  """A Sequential called `body`, added to its input."""
  return Net(lambda net, x: x + net.body(x), body=seq(*layers))


def edsr_block():
  return body_of(conv(WIDE, WIDE), tn.ReLU(), conv(WIDE, WIDE))


def rcan_group():
  attention = lambda: Net(
    lambda net, x: x * net.conv_du(net.avg_pool(x)),
    avg_pool=tn.AdaptiveAvgPool2d(1),
    conv_du=seq(conv(WIDE, 4, 1), tn.ReLU(), conv(4, WIDE, 1), tn.Sigmoid()),
  )
  block = lambda: body_of(conv(WIDE, WIDE), tn.ReLU(), conv(WIDE, WIDE), attention())
  return body_of(*each(3, block), conv(WIDE, WIDE))


def edsr(scale):
  return edsr_pytorch(scale, edsr_block)


def rcan(scale):
  return edsr_pytorch(scale, rcan_group, mean=FLICKR2K)


def basicsr(scale, block, upsample, image_range=255.0):
  """BasicSR's EDSR and RCAN, and mmagic's EDSR; images in [0, 1]; no file contains their mean."""
  mean = image_mean(*DIV2K)

  def forward(net, x):
    x = net.conv_first((x - mean) * image_range)
    x = net.conv_last(net.upsample(x + net.conv_after_body(net.body(x))))
    return x / image_range + mean

  return Net(
    forward,
    conv_first=conv(3, WIDE),
    body=seq(*each(2, block)),
    conv_after_body=conv(WIDE, WIDE),
    upsample=seq(*upsample),
    conv_last=conv(WIDE, 3),
  )


def basicsr_edsr_block():
  forward = lambda net, x: x + net.conv2(F.relu(net.conv1(x)))
  return Net(forward, conv1=conv(WIDE, WIDE), conv2=conv(WIDE, WIDE))


def basicsr_rcan_group():
  attention = lambda: Net(
    lambda net, x: x * net.attention(x),
    attention=seq(
      tn.AdaptiveAvgPool2d(1), conv(WIDE, 4, 1), tn.ReLU(), conv(4, WIDE, 1), tn.Sigmoid()
    ),
  )
  block = lambda: Net(
    lambda net, x: x + net.rcab(x),
    rcab=seq(conv(WIDE, WIDE), tn.ReLU(), conv(WIDE, WIDE), attention()),
  )
  forward = lambda net, x: x + net.conv(net.residual_group(x))
  return Net(forward, residual_group=seq(*each(3, block)), conv=conv(WIDE, WIDE))


def basicsr_edsr(scale):
  return basicsr(scale, basicsr_edsr_block, shuffles(scale, WIDE))


def basicsr_rcan(scale):
  return basicsr(scale, basicsr_rcan_group, shuffles(scale, WIDE))


def msrresnet(scale):
  """XPixelGroup/BasicSR, basicsr/archs/srresnet_arch.py."""
  factors = stages(scale)

  def forward(net, x):
    y = net.body(net.lrelu(net.conv_first(x)))
    for i, factor in enumerate(factors):
      y = net.lrelu(F.pixel_shuffle(getattr(net, f'upconv{i + 1}')(y), factor))
    y = net.conv_last(net.lrelu(net.conv_hr(y)))
    return y + F.interpolate(x, scale_factor=scale, mode='bilinear', align_corners=False)

  return Net(
    forward,
    conv_first=conv(3, WIDE),
    body=seq(*each(2, basicsr_edsr_block)),
    conv_hr=conv(WIDE, WIDE),
    conv_last=conv(WIDE, 3),
    lrelu=tn.LeakyReLU(0.1),
    **{f'upconv{i + 1}': conv(WIDE, WIDE * factor**2) for i, factor in enumerate(factors)},
  )


def mmagic_edsr(scale):
  up = lambda r: Net(
    lambda net, x: F.pixel_shuffle(net.upsample_conv(x), r),
    upsample_conv=conv(WIDE, WIDE * r * r),
  )
  return basicsr(scale, basicsr_edsr_block, map(up, stages(scale)), image_range=1.0)


def up(features, factor, forward, **parts):
  """A convolution `conv` and a pixel shuffle, followed by `forward`."""
  wide = conv(features, features * factor**2)
  shuffle = lambda net, x: forward(net, F.pixel_shuffle(net.conv(x), factor))
  return Net(shuffle, conv=wide, **parts)


def sgrvinod(scale, width=4):
  """sgrvinod/a-PyTorch-Tutorial-to-Super-Resolution, models.py; its tanh mapped to [0, 1]."""
  mean, deviation = (image_mean(*values) for values in IMAGENET)
  block = lambda *layers: Net(lambda net, x: net.conv_block(x), conv_block=seq(*layers))
  norm = lambda *more: block(conv(width, width), tn.BatchNorm2d(width), *more)
  residual = lambda: Net(
    lambda net, x: x + net.conv_block2(net.conv_block1(x)),
    conv_block1=norm(tn.PReLU()),
    conv_block2=norm(),
  )

  def forward(net, x):
    x = net.conv_block1((x - mean) / deviation)
    x = x + net.conv_block2(net.residual_blocks(x))
    return (net.conv_block3(net.subpixel_convolutional_blocks(x)) + 1) / 2

  return Net(
    forward,
    conv_block1=block(conv(3, width, 9), tn.PReLU()),
    residual_blocks=seq(*each(2, residual)),
    conv_block2=norm(),
    subpixel_convolutional_blocks=seq(
      *(up(width, r, lambda net, x: net.prelu(x), prelu=tn.PReLU()) for r in stages(scale))
    ),
    conv_block3=block(conv(width, 3, 9), tn.Tanh()),
  )


def lornatang_srresnet(scale, width=4, ends=('conv1', 'conv2', 'conv3')):
  """Lornatang/SRGAN-PyTorch, model.py, without the clamp at its end; no bias before a norm."""
  first, second, third = ends
  norm = lambda: (conv(width, width, bias=False), tn.BatchNorm2d(width))
  block = lambda: Net(lambda net, x: x + net.rcb(x), rcb=seq(*norm(), tn.PReLU(), *norm()))
  enlarge = lambda r: Net(
    lambda net, x: net.upsample_block(x),
    upsample_block=seq(conv(width, width * r * r), tn.PixelShuffle(r), tn.PReLU()),
  )

  def forward(net, x):
    x = getattr(net, first)(x)
    x = x + getattr(net, second)(net.trunk(x))
    return getattr(net, third)(net.upsampling(x))

  parts = {
    first: seq(conv(3, width, 9), tn.PReLU()),
    'trunk': seq(*each(2, block)),
    second: seq(*norm()),
    'upsampling': seq(*map(enlarge, stages(scale))),
    third: conv(width, 3, 9),
  }
  return Net(forward, **parts)


def leftthomas(scale, width=4, *, published=False):
  """leftthomas/SRGAN, model.py: five blocks; `published`: as its published weights need it."""

  def forward(net, x):
    x = net.block1(x)
    y = seq(net.block2, net.block3, net.block4, net.block5, net.block6, net.block7)(x)
    return (torch.tanh(net.block8(x + y)) + 1) / 2

  residual = lambda: Net(
    lambda net, x: x + net.bn2(net.conv2(net.prelu(net.bn1(net.conv1(x))))),
    conv1=conv(width, width),
    bn1=tn.BatchNorm2d(width),
    prelu=tn.PReLU(),
    conv2=conv(width, width),
    bn2=tn.BatchNorm2d(width),
  )
  ups = (up(width, r, lambda net, x: net.prelu(x), prelu=tn.PReLU()) for r in stages(scale))
  return Net(
    forward,
    block1=seq(conv(3, width, 9), tn.PReLU()),
    **{f'block{i}': residual() for i in range(2, 7)},
    block7=seq(conv(width, width), tn.PReLU() if published else tn.BatchNorm2d(width)),
    block8=seq(*ups, conv(width, 3, 9)),
  )


def swift_srgan(scale, width=4):
  """Koushik0901/Swift-SRGAN, models.py, with its two kinds of unused slopes."""
  separable = lambda a, b, size=3, bias=True: Net(
    lambda net, x: net.pointwise(net.depthwise(x)),
    depthwise=conv(a, a, size, groups=a, bias=bias),
    pointwise=conv(a, b, 1, bias=bias),
  )
  norm = lambda forward: Net(
    forward,
    cnn=separable(width, width, bias=False),
    bn=tn.BatchNorm2d(width),
    act=tn.PReLU(width),
  )
  plain = lambda net, x: net.bn(net.cnn(x))
  residual = lambda: Net(
    lambda net, x: x + net.block2(net.block1(x)),
    block1=norm(lambda net, x: net.act(net.bn(net.cnn(x)))),
    block2=norm(plain),
  )
  enlarge = lambda: Net(
    lambda net, x: net.act(F.pixel_shuffle(net.conv(x), 2)),
    conv=separable(width, 4 * width),
    act=tn.PReLU(width),
  )

  def forward(net, x):
    x = net.initial(x)
    x = net.upsampler(x + net.convblock(net.residual(x)))
    return (torch.tanh(net.final_conv(x)) + 1) / 2

  return Net(
    forward,
    initial=Net(
      lambda net, x: net.act(net.cnn(x)), cnn=separable(3, width, 9), act=tn.PReLU(width)
    ),
    residual=seq(*each(2, residual)),
    convblock=norm(plain),
    upsampler=seq(*each(scale // 2, enlarge)),
    final_conv=separable(width, 3, 9),
  )
