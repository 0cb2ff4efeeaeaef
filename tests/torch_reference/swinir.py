"""SwinIR as JingyunLiang/SwinIR, models/network_swinir.py, names and computes it."""

from torch_reference.parts import DIV2K, F, Net, conv, image_mean, seq, shuffles, stages, tn, torch

WIDTH, HEADS, WINDOW, TRAINED_ON = 12, 2, 4, 8


def partition(x, size=WINDOW):
  """Returns the windows of [b, h, w, c]: [b * windows, pixels, c]."""
  b, h, w, c = x.shape
  x = x.view(b, h // size, size, w // size, size, c).permute(0, 1, 3, 2, 4, 5)
  return x.reshape(-1, size * size, c)


def reverse(windows, h, w, size=WINDOW):
  x = windows.view(-1, h // size, w // size, size, size, windows.shape[-1])
  return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, h, w, windows.shape[-1])


def relative_index(size=WINDOW):
  at = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')).flatten(1)
  down, right = at[:, :, None] - at[:, None, :] + size - 1
  return down * (2 * size - 1) + right


def mask_of(h, w, shift, size=WINDOW):
  """Mask between pixels that are adjacent only because of the shift, as `calculate_mask`."""
  regions, count = torch.zeros(1, h, w, 1), 0
  slices = slice(0, -size), slice(-size, -shift), slice(-shift, None)
  for rows in slices:
    for columns in slices:
      regions[:, rows, columns] = count
      count += 1
  windows = partition(regions).squeeze(-1)
  return torch.where(windows[:, None] == windows[:, :, None], 0.0, -100.0)


def attend(net, x, mask):
  n, pixels, c = x.shape
  q, k, v = net.qkv(x).reshape(n, pixels, 3, HEADS, c // HEADS).permute(2, 0, 3, 1, 4)
  bias = net.relative_position_bias_table[net.relative_position_index.view(-1)]
  scores = q * (c // HEADS) ** -0.5 @ k.transpose(-2, -1)
  scores = scores + bias.view(pixels, pixels, HEADS).permute(2, 0, 1)
  if mask is not None:
    scores = scores.view(-1, len(mask), HEADS, pixels, pixels) + mask[:, None]
    scores = scores.view(-1, HEADS, pixels, pixels)
  return net.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, pixels, c))


def attention():
  net = Net(None, qkv=tn.Linear(WIDTH, 3 * WIDTH), proj=tn.Linear(WIDTH, WIDTH))
  net.relative_position_bias_table = tn.Parameter(torch.zeros((2 * WINDOW - 1) ** 2, HEADS))
  net.register_buffer('relative_position_index', relative_index())
  return net


def block(shift):
  def forward(net, x):
    _, h, w, _ = x.shape
    y = torch.roll(net.norm1(x), (-shift, -shift), (1, 2))
    y = attend(net.attn, partition(y), mask_of(h, w, shift) if shift else None)
    x = x + torch.roll(reverse(y, h, w), (shift, shift), (1, 2))
    return x + net.mlp.fc2(F.gelu(net.mlp.fc1(net.norm2(x))))

  net = Net(
    forward,
    norm1=tn.LayerNorm(WIDTH),
    attn=attention(),
    norm2=tn.LayerNorm(WIDTH),
    mlp=Net(None, fc1=tn.Linear(WIDTH, 2 * WIDTH), fc2=tn.Linear(2 * WIDTH, WIDTH)),
  )
  net.register_buffer('attn_mask', mask_of(TRAINED_ON, TRAINED_ON, shift) if shift else None)
  return net


def last(x):
  return x.permute(0, 2, 3, 1)


def first(x):
  return x.permute(0, 3, 1, 2)


def group():
  blocks = tn.ModuleList([block(0), block(WINDOW // 2)])

  def forward(net, x):
    y = x
    for each in net.residual_group.blocks:
      y = each(y)
    return x + last(net.conv(first(y)))

  return Net(forward, residual_group=Net(None, blocks=blocks), conv=conv(WIDTH, WIDTH))


def swinir(scale, *, light=False, nearest=False, channels=3, tail=5):
  """The classical network, or the light one, which computes the image by one pixel shuffle."""
  mean = image_mean(*DIV2K) if channels == 3 else 0.0

  def forward(net, image):
    h, w = image.shape[2:]
    x = F.pad(image, (0, -w % WINDOW, 0, -h % WINDOW), 'reflect') - mean
    x = net.conv_first(x)
    y = net.patch_embed.norm(last(x))
    for layer in net.layers:
      y = layer(y)
    x = x + net.conv_after_body(first(net.norm(y)))
    if nearest:
      return (enlarge(net, x) + mean)[:, :, : h * scale, : w * scale]
    x = net.upsample(x) if light else net.conv_last(net.upsample(net.conv_before_upsample(x)))
    return (x + mean)[:, :, : h * scale, : w * scale]

  def enlarge(net, x):
    x = net.conv_before_upsample(x)
    for i in range(1, len(stages(scale)) + 1):
      x = F.interpolate(x, scale_factor=2, mode='nearest')
      x = F.leaky_relu(getattr(net, f'conv_up{i}')(x), 0.2)
    return net.conv_last(F.leaky_relu(net.conv_hr(x), 0.2))

  parts = {
    'conv_first': conv(channels, WIDTH),
    'patch_embed': Net(None, norm=tn.LayerNorm(WIDTH)),
    'layers': tn.ModuleList([group(), group()]),
    'norm': tn.LayerNorm(WIDTH),
    'conv_after_body': conv(WIDTH, WIDTH),
  }
  if light:
    parts['upsample'] = seq(conv(WIDTH, channels * scale**2), tn.PixelShuffle(scale))
  else:
    parts['conv_before_upsample'] = seq(conv(WIDTH, tail), tn.LeakyReLU())
    ups = [f'conv_up{i}' for i in range(1, len(stages(scale)) + 1)]
    names = (*ups, 'conv_hr') if nearest else ()
    parts |= {name: conv(tail, tail) for name in names}
    if not nearest:
      parts['upsample'] = seq(*shuffles(scale, tail))
    parts['conv_last'] = conv(tail, channels)
  return Net(forward, **parts)
