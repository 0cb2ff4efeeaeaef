"""Dense networks, RRDB, RDN and SRDenseNet, as public PyTorch code names and computes them."""

from torch_reference.parts import F, Net, conv, each, seq, shuffles, stages, tn, torch

WIDE, GROWTH, LAYERS = 6, 3, 3


def joined(net, x):
  """Concatenate a network's output to its input."""
  return torch.cat([x, net(x)], 1)


def rrdb_dense(layer):
  """Five convolutions conv1 to conv5; `layer` builds one, with or without its activation."""

  def forward(net, x):
    seen = x
    for i in range(1, 5):
      seen = torch.cat([seen, F.leaky_relu(getattr(net, f'conv{i}')(seen), 0.2)], 1)
    return x + 0.2 * net.conv5(seen)

  widths = (GROWTH,) * 4 + (WIDE,)
  parts = {f'conv{i + 1}': layer(WIDE + i * GROWTH, width) for i, width in enumerate(widths)}
  return Net(forward, **parts)


def rrdb_block(name, layer=conv):
  def forward(net, x):
    y = x
    for part in net.children():
      y = part(y)
    return x + 0.2 * y

  return Net(forward, **{f'{name}{i}': rrdb_dense(layer) for i in (1, 2, 3)})


def rrdb(scale, dense, *names):
  """ESRGAN's generator; `names` are those of head, trunk, its end, upsampling, detail and tail."""
  head, trunk, body, up, detail, tail = names

  def forward(net, x):
    part = lambda name: getattr(net, name)
    x = part(head)(x)
    x = x + part(body)(part(trunk)(x))
    for i, factor in enumerate(stages(scale), 1):
      x = F.interpolate(x, scale_factor=factor, mode='nearest')
      x = F.leaky_relu(part(f'{up}{i}')(x), 0.2)
    return part(tail)(F.leaky_relu(part(detail)(x), 0.2))

  parts = {
    head: conv(3, WIDE),
    trunk: seq(*each(2, lambda: rrdb_block(dense))),
    body: conv(WIDE, WIDE),
    **{f'{up}{i}': conv(WIDE, WIDE) for i, _ in enumerate(stages(scale), 1)},
    detail: conv(WIDE, WIDE),
    tail: conv(WIDE, 3),
  }
  return Net(forward, **parts)


def rrdb_new(scale):
  """BasicSR, rrdbnet_arch.py."""
  return rrdb(scale, 'rdb', 'conv_first', 'body', 'conv_body', 'conv_up', 'conv_hr', 'conv_last')


def rrdb_old(scale):
  """xinntao/ESRGAN, RRDBNet_arch.py."""
  return rrdb(
    scale, 'RDB', 'conv_first', 'RRDB_trunk', 'trunk_conv', 'upconv', 'HRconv', 'conv_last'
  )


def rrdb_oldest(scale):
  """xinntao/ESRGAN, architecture.py: one Sequential, whose trunk adds `sub` to its input."""
  layer = lambda a, b: seq(conv(a, b))  # the activation that follows has no tensors
  trunk = seq(*each(2, lambda: rrdb_block('RDB', layer)), conv(WIDE, WIDE))
  leaky = lambda: tn.LeakyReLU(0.2)
  ups = [(tn.Upsample(scale_factor=r), conv(WIDE, WIDE), leaky()) for r in stages(scale)]
  return Net(
    lambda net, x: net.model(x),
    model=seq(
      conv(3, WIDE),
      Net(lambda net, x: x + net.sub(x), sub=trunk),
      *(layer for up in ups for layer in up),
      conv(WIDE, WIDE),
      leaky(),
      conv(WIDE, 3),
    ),
  )


def rdn(names, layer, upsample, *, blocks=2, channels=3):
  """RDN; `names` are those of both heads, the trunk, its end and the upsampling."""
  first, second, trunk, end, enlarge = names

  def forward(net, x):
    part = lambda name: getattr(net, name)
    shallow = part(first)(x)
    x, found = part(second)(shallow), []
    for block in part(trunk):
      x = block(x)
      found.append(x)
    return part(enlarge)(part(end)(torch.cat(found, 1)) + shallow)

  parts = {
    first: conv(channels, WIDE),
    second: conv(WIDE, WIDE),
    trunk: tn.ModuleList(each(blocks, layer)),
    end: seq(conv(WIDE * blocks, WIDE, 1), conv(WIDE, WIDE)),
    enlarge: upsample,
  }
  return Net(forward, **parts)


def rdn_block(growth, **names):
  """A residual dense block; `names` are those of the layers (with their constructor) and fusion."""
  (dense, make), (fusion, _) = names.items()
  layers = seq(*(make(WIDE + i * growth, growth) for i in range(LAYERS)))
  forward = lambda net, x: x + getattr(net, fusion)(getattr(net, dense)(x))
  return Net(forward, **{dense: layers, fusion: conv(WIDE + LAYERS * growth, WIDE, 1)})


def rdn_yjn870(scale, channels=3):
  """yjn870/RDN-pytorch, models.py; mmagic's growth may differ from the features, as here."""
  layer = lambda a, b: Net(lambda net, x: torch.cat([x, F.relu(net.conv(x))], 1), conv=conv(a, b))
  block = lambda: rdn_block(GROWTH, layers=layer, lff=None)
  names = ('sfe1', 'sfe2', 'rdbs', 'gff', 'upscale')
  net = rdn(names, block, seq(*shuffles(scale, WIDE)), channels=channels)
  trunk = net.call
  net.output = conv(WIDE, channels)
  net.call = lambda net, x: net.output(trunk(net, x))
  return net


def rdn_edsr_pytorch(scale, growth=WIDE):
  """sanghyun-son/EDSR-PyTorch, rdn.py; images in [0, 255]; it upsamples `growth` features."""
  layer = lambda a, b: Net(
    lambda net, x: torch.cat([x, net.conv(x)], 1), conv=seq(conv(a, b), tn.ReLU())
  )
  upsample, width = [], WIDE
  for factor in stages(scale):
    upsample += [conv(width, growth * factor**2), tn.PixelShuffle(factor)]
    width = growth
  block = lambda: rdn_block(growth, convs=layer, LFF=None)
  names = ('SFENet1', 'SFENet2', 'RDBs', 'GFF', 'UPNet')
  return rdn(names, block, seq(*upsample, conv(growth, 3)))


def rdn_lornatang(scale):
  """Lornatang/RDN-PyTorch, model.py, without the clamp at its end."""
  layer = lambda a, b: Net(
    lambda net, x: torch.cat([x, net.rb(x)], 1), rb=seq(conv(a, b), tn.ReLU())
  )
  block = lambda: rdn_block(GROWTH, rdb=layer, local_feature_fusion=None)
  enlarge = lambda r: Net(
    lambda net, x: net.upsample_block(x),
    upsample_block=seq(conv(WIDE, WIDE * r * r), tn.PixelShuffle(r)),
  )
  names = ('conv1', 'conv2', 'trunk', 'global_feature_fusion', 'upsampling')
  net = rdn(names, block, seq(*map(enlarge, stages(scale))))
  trunk = net.call
  net.conv3 = conv(WIDE, 3)
  net.call = lambda net, x: net.conv3(trunk(net, x))
  return net


def srdensenet_yjn870(scale=4):
  """yjn870/SRDenseNet-pytorch, models.py."""
  del scale  # two deconvolutions for every scale
  width, squeezed = GROWTH * LAYERS, 5
  activated = lambda a, b: Net(lambda net, x: F.relu(net.conv(x)), conv=conv(a, b))
  dense = lambda a, b: Net(lambda net, x: torch.cat([x, F.relu(net.conv(x))], 1), conv=conv(a, b))

  def block(inputs):
    layers = (dense(i * GROWTH, GROWTH) for i in range(1, LAYERS))
    return Net(
      lambda net, x: torch.cat([x, net.block(x)], 1), block=seq(activated(inputs, GROWTH), *layers)
    )

  def enlarge():
    return tn.ConvTranspose2d(squeezed, squeezed, 3, 2, padding=1, output_padding=1), tn.ReLU()

  def forward(net, x):
    x = net.bottleneck(net.dense_blocks(net.conv(x)))
    return net.reconstruction(net.deconv(x))

  return Net(
    forward,
    conv=activated(1, width),
    dense_blocks=seq(block(width), block(2 * width)),
    bottleneck=seq(conv(3 * width, squeezed, 1), tn.ReLU()),
    deconv=seq(*enlarge(), *enlarge()),
    reconstruction=conv(squeezed, 1),
  )


def srdensenet_twtygqyy(scale=4):
  """twtygqyy/pytorch-SRDenseNet, srdensenet.py with PReLUs: one per block, applied twice."""
  del scale
  width, squeezed = GROWTH * LAYERS, 5
  plain = {'bias': False}

  def dense(net, x):
    found = [net.relu(net.conv1(x))]
    seen = found[0]
    for i in range(2, LAYERS + 1):
      found.append(net.relu(getattr(net, f'conv{i}')(seen)))
      seen = net.relu(torch.cat(found, 1))
    return seen

  def block(inputs):
    widths = (inputs, *(i * GROWTH for i in range(1, LAYERS)))
    layers = {f'conv{i}': conv(a, GROWTH) for i, a in enumerate(widths, 1)}
    return seq(Net(dense, relu=tn.PReLU(), **layers))

  def forward(net, x):
    x = net.relu(net.lowlevel(x))
    x = torch.cat([x, net.denseblock1(x)], 1)
    x = torch.cat([x, net.denseblock2(x)], 1)
    return net.reconstruction(net.deconv(net.bottleneck(x)))

  def enlarge():
    return tn.ConvTranspose2d(squeezed, squeezed, 2, 2, **plain), tn.PReLU()

  return Net(
    forward,
    relu=tn.PReLU(),
    lowlevel=conv(1, width),
    denseblock1=block(width),
    denseblock2=block(2 * width),
    bottleneck=conv(3 * width, squeezed, 1, **plain),
    deconv=seq(*enlarge(), *enlarge()),
    reconstruction=conv(squeezed, 1, **plain),
  )


def rrdb_kair(scale):
  """KAIR, network_rrdb.py: the oldest names, but the last layer of a block is not a Sequential."""
  net = rrdb_oldest(scale)
  for block in list(net.model[1].sub)[:-1]:
    for dense in block.children():
      dense.conv5 = dense.conv5[0]
  return net


def rrdb_unshuffled(scale):
  """Real-ESRGAN's x2, rrdbnet_arch.py of BasicSR: x4 on pixels that are folded into channels."""
  assert scale == 2
  net = rrdb_new(4)
  net.conv_first = conv(12, WIDE)
  inner = net.call
  net.call = lambda net, x: inner(net, F.pixel_unshuffle(x, 2))
  return net
