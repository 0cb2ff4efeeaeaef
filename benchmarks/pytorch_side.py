"""PyTorch's side of a comparison: the usual loop, optimized.

Loss, backward pass, clipped gradients, fused AdamW; channels last; compiled by default. JAX is not
imported here, so that a process that runs only this side does not pay for it.
"""

import functools
import time
import timeit
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.cases import (
  ADVERSARIAL,
  ALL_CASES,
  FOLDED,
  LEARNING_RATE,
  SCALE,
  Side,
  make_batch,
  make_images,
)
from tests.torch_reference import networks

DEVICE = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def train(
  name: str, batch: int, precision: str, variables: Any, *, compiled: bool, repeat: int = 1
) -> Side:
  """Build a training step that starts with JAX variables, or with its own if there are none."""
  case = ALL_CASES[name]
  generator = _placed(
    _reference(name, (case.patch, case.patch)), variables and variables[0]
  ).train()
  make_optimizer = functools.partial(
    torch.optim.AdamW, lr=LEARNING_RATE, weight_decay=0.0, fused=True
  )
  wrap = functools.partial(torch.compile, disable=not compiled)
  optimizer, apply = make_optimizer(generator.parameters()), wrap(generator)
  discriminator = discriminator_optimizer = logits_of = None
  if case.adversarial:
    reference = networks.Discriminator(1, 64, 1024, swift=False)
    discriminator = _placed(reference, variables and variables[1]).train()
    discriminator_optimizer, logits_of = (
      make_optimizer(discriminator.parameters()),
      wrap(discriminator),
    )
  raw = make_batch(case, batch)
  crops = _image(raw['lr']), _image(raw['hr'])
  bce = F.binary_cross_entropy_with_logits

  def step(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = (image.float() / 255 for image in batch)
    with _autocast(precision):
      sr = apply(x)
      loss = pixels = F.l1_loss(sr.float(), y)
      if (
        discriminator is not None and discriminator_optimizer is not None and logits_of is not None
      ):
        real, fake = logits_of(y), logits_of(sr.detach())
        discriminator_loss = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
        discriminator_optimizer.zero_grad(set_to_none=True)
        discriminator_loss.backward()
        torch.nn.utils.clip_grad_norm_(discriminator.parameters(), 1.0)
        discriminator_optimizer.step()
        discriminator.requires_grad_(False)
        logits = logits_of(sr)
        loss = loss + ADVERSARIAL * bce(logits, torch.ones_like(logits))
        discriminator.requires_grad_(True)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
    optimizer.step()
    return pixels.detach(), norm

  def run(batch: tuple[torch.Tensor, torch.Tensor] = crops) -> tuple[float, float]:
    for _ in range(repeat):
      pixels, norm = step(batch)
    _wait()
    return float(pixels), float(norm)

  begun = time.perf_counter()
  pixels, norm = (float(x) for x in step(crops))
  return Side(run, {'loss': pixels, 'grad_norm': norm}, time.perf_counter() - begun)


def infer(
  name: str,
  batch: int,
  precision: str,
  variables: Any,
  *,
  compiled: bool,
  repeat: int = 1,
  side: int = 256,
) -> Side:
  """Build the upscaling of images of 256x256, in one batch or one by one, whichever is faster."""
  folded = (ALL_CASES[name].network or name) in FOLDED
  reference = _placed(
    _reference(name, (side, side), folded=folded), variables and variables[0]
  ).eval()
  apply: Any = torch.compile(reference, disable=not compiled)
  images = make_images(batch, side)

  @torch.inference_mode()
  def enlarge(groups: list[torch.Tensor]) -> list[torch.Tensor]:
    with _autocast(precision):
      for _ in range(repeat):
        outputs = [apply(x) for x in groups]
    _wait()
    return outputs

  begun = time.perf_counter()
  ways = [[_image(group) for group in np.split(images, n)] for n in sorted({1, len(images)})]
  images_out, *_ = (enlarge(way) for way in ways)
  seconds = time.perf_counter() - begun
  groups = min(ways, key=lambda way: timeit.timeit(lambda: enlarge(way), number=1))
  image = np.moveaxis(images_out[0].float().cpu().numpy(), 1, -1)
  return Side(lambda: enlarge(groups), {'image': image}, seconds)


def _reference(name: str, size: tuple[int, int], *, folded: bool = False) -> torch.nn.Module:
  """Build the PyTorch reference of a case for low-resolution images of a size."""
  options, name = ALL_CASES[name].options, ALL_CASES[name].network or name
  if name == 'edsr':
    return networks.EDSR(networks.by_shuffles(SCALE, features=64), features=64, **options)
  if name == 'rdn':
    return networks.RDN(SCALE, 1, features=64, **options)
  if name == 'span':
    return networks.SPAN(
      SCALE, 48, 6, 255.0, networks.conv if folded else networks.Conv3XC, channels=1
    )
  if name == 'vdsr':
    return networks.VDSR(networks.Cubic(size, SCALE), 1, 64, 20)
  if name == 'rrdb':
    return networks.RRDBNet(SCALE, 1, 64, 32, **options)
  if name == 'swinir':
    fields = (options['features'], options['depths'], 6, 8, 64, True)
    return networks.SwinIR(SCALE, *fields, networks.SwinBlock, channels=1)
  return networks.NormalizedNet(SCALE, 1, 64, 16, swift=name == 'swift_srgan')


def _placed(reference: torch.nn.Module, variables: Any) -> Any:
  if variables:
    networks.load(reference, variables)
  return reference.float().to(DEVICE).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _image(x: np.ndarray) -> torch.Tensor:
  return to_device(torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, -1, 1))))


def to_device(image: torch.Tensor) -> torch.Tensor:
  """Copy images [n, c, h, w] to the network's device, channels last."""
  if DEVICE.type == 'cuda':
    image = image.pin_memory()
  return image.to(DEVICE, non_blocking=True).contiguous(memory_format=torch.channels_last)


def _wait() -> None:
  if DEVICE.type == 'cuda':
    torch.cuda.synchronize()


def _autocast(precision: str) -> Any:
  return torch.autocast(DEVICE.type, torch.bfloat16, enabled=precision == 'bfloat16')
