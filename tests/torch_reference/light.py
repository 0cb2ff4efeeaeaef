"""SRCNN, FSRCNN, VDSR, RLFN and SPAN as public PyTorch code names and computes them."""

from itertools import pairwise

from torch_reference.parts import DIV2K, F, Net, conv, each, image_mean, mean_shift, seq, tn, torch


def srcnn(channels=1, **padding):
  """yjn870/SRCNN-pytorch, models.py, padded with zeros; its input is already upsampled."""
  return Net(
    lambda net, x: net.conv3(F.relu(net.conv2(F.relu(net.conv1(x))))),
    conv1=conv(channels, 6, 9, **padding),
    conv2=conv(6, 4, 5, **padding),
    conv3=conv(4, channels, 5, **padding),
  )


def srcnn_lornatang(channels=1):
  """Lornatang/SRCNN-PyTorch, model.py, with its 1x1 in the middle."""
  return Net(
    lambda net, x: net.reconstruction(net.map(net.features(x))),
    features=seq(conv(channels, 6, 9), tn.ReLU()),
    map=seq(conv(6, 4, 1), tn.ReLU()),
    reconstruction=conv(4, channels, 5),
  )


def vdsr(channels=1, names=('input', 'residual_layer', 'output')):
  """twtygqyy/pytorch-vdsr, vdsr.py; its input is already upsampled; no biases."""
  first, trunk, last = names
  plain = {'bias': False}
  layer = lambda: Net(lambda net, x: F.relu(net.conv(x)), conv=conv(6, 6, **plain))

  def forward(net, x):
    y = F.relu(getattr(net, first)(x))
    return x + getattr(net, last)(getattr(net, trunk)(y))

  head = conv(channels, 6, **plain)
  parts = {
    first: seq(head, tn.ReLU()) if first == 'conv1' else head,
    trunk: seq(*each(3, layer)),
    last: conv(6, channels, **plain),
  }
  return Net(forward, **parts)


def vdsr_lornatang(channels=1):
  """Lornatang/VDSR-PyTorch, model.py."""
  return vdsr(channels, ('conv1', 'trunk', 'conv2'))


def fsrcnn(scale):
  """yjn870/FSRCNN-pytorch, models.py."""
  middle = [layer for _ in range(2) for layer in (conv(4, 4), tn.PReLU(4))]
  return Net(
    lambda net, x: net.last_part(net.mid_part(net.first_part(x))),
    first_part=seq(conv(1, 7, 5), tn.PReLU(7)),
    mid_part=seq(conv(7, 4, 1), tn.PReLU(4), *middle, conv(4, 7, 1), tn.PReLU(7)),
    last_part=tn.ConvTranspose2d(7, 1, 9, scale, padding=4, output_padding=scale - 1),
  )


def fsrcnn_lornatang(scale):
  """Lornatang/FSRCNN-PyTorch, model.py."""
  middle = [layer for _ in range(2) for layer in (conv(4, 4), tn.PReLU(4))]
  return Net(
    lambda net, x: net.deconv(net.expand(net.map(net.shrink(net.feature_extraction(x))))),
    feature_extraction=seq(conv(1, 7, 5), tn.PReLU(7)),
    shrink=seq(conv(7, 4, 1), tn.PReLU(4)),
    map=seq(*middle),
    expand=seq(conv(4, 7, 1), tn.PReLU(7)),
    deconv=tn.ConvTranspose2d(7, 1, 9, scale, padding=4, output_padding=scale - 1),
  )


def rlfn(scale, width=6, middle=5, *, names=('conv_1', 'block_', 'conv_2'), bilinear=False):
  """bytedance/RLFN, rlfn.py and rlfn_ntire.py; images in [0, 255]."""

  def attend(net, x):
    near = net.conv1(x)
    far = net.conv3(F.max_pool2d(net.conv2(near), kernel_size=7, stride=3))
    far = F.interpolate(far, x.shape[2:], mode='bilinear', align_corners=False)
    return x * torch.sigmoid(net.conv4(far + net.conv_f(near)))

  attention = lambda: Net(
    attend,
    conv1=conv(width, 4, 1),
    conv_f=conv(4, 4, 1),
    conv2=conv(4, 4, stride=2, padding=0),
    conv3=conv(4, 4),
    conv4=conv(4, width, 1),
  )

  def convolve(net, x):
    y = x
    for layer in (net.c1_r, net.c2_r, net.c3_r):
      y = F.leaky_relu(layer(y), 0.05)
    return net.esa(net.c5(x + y))

  def block():
    layers = pairwise((width, middle, middle, width))
    parts = {f'c{i}_r': conv(a, b) for i, (a, b) in enumerate(layers, 1)}
    return Net(convolve, **parts, c5=conv(width, width, 1), esa=attention())

  def forward(net, x):
    part = lambda name: getattr(net, name)
    y = part(head)(x)
    y = net.upsampler(y + part(body)(part(f'{trunk}2')(part(f'{trunk}1')(y))))
    if bilinear:
      y = y + F.interpolate(x, scale_factor=scale, mode='bilinear', align_corners=False)
    return y

  head, trunk, body = names
  parts = {
    head: conv(3, width),
    f'{trunk}1': block(),
    f'{trunk}2': block(),
    body: conv(width, width),
    'upsampler': seq(conv(width, 3 * scale**2), tn.PixelShuffle(scale)),
  }
  return Net(forward, **parts)


def conv3xc(inputs, outputs):
  """SPAN's convolution in training; `eval_conv` is in the file, but unused."""
  layers = (
    conv(inputs, 2 * inputs, 1),
    conv(2 * inputs, 2 * outputs, padding=0),
    conv(2 * outputs, outputs, 1),
  )
  return Net(
    lambda net, x: net.conv(F.pad(x, (1, 1, 1, 1))) + net.sk(x),
    sk=conv(inputs, outputs, 1),
    conv=seq(*layers),
    eval_conv=conv(inputs, outputs),
  )


def slim(inputs, outputs):
  """`conv3xc`, reduced to the tensors that inference needs."""
  return Net(lambda net, x: net.eval_conv(x), eval_conv=conv(inputs, outputs))


def span(scale, layer=conv3xc, width=6, image_range=255.0, mean=DIV2K):
  """hongyuanyu/SPAN, span_arch.py; images in [0, 1]; the output is not scaled back."""
  mean = image_mean(*mean)

  def convolve(net, x):
    first = F.silu(net.c1_r(x))  # in place, so the returned tensor is activated
    y = net.c3_r(F.silu(net.c2_r(first)))
    return (x + y) * (torch.sigmoid(y) - 0.5), first

  def forward(net, x):
    shallow = net.conv_1((x - mean) * image_range)
    first, _ = net.block_1(shallow)
    last, inner = net.block_2(first)
    return net.upsampler(net.conv_cat(torch.cat([shallow, net.conv_2(last), first, inner], 1)))

  block = lambda: Net(convolve, **{f'c{i}_r': layer(width, width) for i in (1, 2, 3)})
  return Net(
    forward,
    conv_1=layer(3, width),
    block_1=block(),
    block_2=block(),
    conv_cat=conv(4 * width, width, 1),
    conv_2=layer(width, width),
    upsampler=seq(conv(width, 3 * scale**2), tn.PixelShuffle(scale)),
  )


def span_slim(scale):
  """The entry of NTIRE 2024, team38_SPAN.py."""
  return span(scale, slim)


def span_neosr(scale):
  """neosr, span_arch.py with norm=False, which adds an empty buffer."""
  net = span(scale, image_range=1.0, mean=(0.0, 0.0, 0.0))
  net.register_buffer('no_norm', torch.zeros(1))
  return net


def vdsr_shifted(channels=3, *, image_range=255.0, bias=False):
  """EDSR-PyTorch, vdsr.py, or torchSR, vdsr.py: upsampled input, less a mean."""
  widths = list(pairwise((channels, 6, 6, 6, channels)))
  layers = [conv(a, b, bias=bias) for a, b in widths]
  if bias:  # torchSR's is one Sequential
    body = seq(*[part for layer in layers for part in (layer, tn.ReLU())][:-1])
  else:
    body = seq(*(seq(layer, tn.ReLU()) for layer in layers[:-1]), seq(layers[-1]))

  def forward(net, x):
    x = net.sub_mean(x)
    return net.add_mean(x + net.body(x))

  shifts = {
    'sub_mean': mean_shift(-1, DIV2K, image_range),
    'add_mean': mean_shift(1, DIV2K, image_range),
  }
  return Net(forward, **shifts, body=body)
