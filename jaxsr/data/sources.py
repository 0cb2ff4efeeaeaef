"""Sources of high-resolution images: phantoms, folders of files, and records; see `Source`."""

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt

from jaxsr.data import image_files, manifest, reading
from jaxsr.data.phantom import phantom, phantom_nodules
from jaxsr.data.records import Records
from jaxsr.errors import ImageError, UserError

Raw = UInt[np.ndarray, 'h w c']


@runtime_checkable
class Source(Protocol):
  """Images by number."""

  @property
  def names(self) -> Sequence[str]:
    """The name of each image, for messages and tables."""
    ...

  @property
  def sizes(self) -> Sequence[tuple[int, int]]:
    """Height and width of each image, in pixels."""
    ...

  @property
  def identities(self) -> Sequence[str]:
    """An identifier of each image's patient, by which training and validation are compared."""
    ...

  @property
  def bits(self) -> int:
    """8, or 16 if one of the images has more than 8 bits."""
    ...

  @property
  def rejected(self) -> Sequence[ImageError]:
    """The errors of files that were left out when the source was opened."""
    ...

  def __len__(self) -> int:
    """Returns the number of images."""
    ...

  def __getitem__(self, index: int) -> Raw:
    """Returns image `index`, uint8 or uint16; raises ImageError if it cannot be read."""
    ...


class Phantoms:
  """Phantoms number `start` to `start + count` of a seed."""

  rejected: Sequence[ImageError] = ()

  def __init__(self, *, seed: int, start: int, count: int, size: int, bits: int, channels: int = 1):
    try:
      phantom_nodules(seed, start, size=size)
    except ValueError as error:
      raise UserError(f'phantom: {error}') from error
    if bits not in (8, 16):
      raise UserError(f'phantom: {bits} bits are neither 8 nor 16')
    self.seed, self.start, self.size, self.bits, self.channels = seed, start, size, bits, channels
    self.names = [f'phantom_{seed}_{start + i:07d}.png' for i in range(count)]
    self.sizes, self.identities = [(size, size)] * count, self.names

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, index: int) -> Raw:
    film = phantom(self.seed, self.start + index, size=self.size, bits=self.bits)
    return np.repeat(film[..., None], self.channels, axis=2)


class Folder:
  """The usable images below a folder, in the order of their names.

  `bits` is 16 if one of them has 16; `stored_bits` is the number of bits that 16-bit files use if
  they do not record it, or 0. `minimum` is the smallest usable side, and `why` explains it in
  errors, with {} in its place. Raises UserError if no image is usable.
  """

  def __init__(
    self,
    root: str | Path,
    *,
    channels: int = 1,
    minimum: int = 1,
    why: str = 'at least {} pixels per side are needed',
    stored_bits: int = 0,
  ):
    self.root, self.channels, self.stored_bits = Path(root), channels, stored_bits
    self.paths: list[Path] = []
    self.sizes: list[tuple[int, int]] = []
    self.depths: list[int] = []
    self.identities: list[str] = []
    self.rejected: list[ImageError] = []
    self._sums = manifest.read(self.root)
    for path in image_files.find(root):
      try:
        height, width, bits = image_files.check(path, channels)
        if min(height, width) < minimum:
          raise ImageError(path, f'is {width}x{height}; {why.format(minimum)}')
        identity = _identity(path)
      except ImageError as error:
        self.rejected.append(error)
      else:
        self.paths.append(path)
        self.sizes.append((height, width))
        self.depths.append(bits)
        self.identities.append(identity)
    self.rejected += manifest.missing(self.root, self._sums)
    manifest.remark_unlisted(self.root, self._sums, self.paths)
    if not self.paths:
      raise UserError(f'{root}: no usable image; {self.rejected[0]}')
    self.bits = max(self.depths)
    base = self.root if self.root.is_dir() else self.root.parent
    self.names = [str(path.relative_to(base)) for path in self.paths]

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Raw:
    return self.load(index)[0]

  def load(self, index: int) -> tuple[Raw, image_files.ImageInfo]:
    """Read an image, with the range and metadata of its file; raises ImageError."""
    path = self.paths[index]
    manifest.check(self.root, self._sums, path)
    image, info = image_files.load(path, self.channels, self.stored_bits)
    found, expected = (
      (*image.shape[:2], 8 * image.itemsize),
      (*self.sizes[index], self.depths[index]),
    )
    if found != expected:
      (height, width, bits), (h, w, b) = found, expected
      text = f'has changed: it was {w}x{h} of {b} bits and is {width}x{height} of {bits}'
      raise ImageError(path, f'{text}; start again to use it')
    return image, info

  def is_away(self) -> bool:
    """Whether none of several images can be opened, as if the disk is not mounted."""
    some = self.paths[:: max(1, len(self.paths) // 8)]
    return not any(reading.can_be_opened(path) for path in some)


class Paired:
  """The images of a folder or of records, with the low resolution that was acquired with each.

  A low-resolution image has the name of its image, relative to the folder; the suffix may differ.
  Images without one, low-resolution images without an image, and pairs whose sides do not differ by
  the scale are in `rejected`. All have 16 bits if one of them has. The folder of low resolutions
  may hold those of other splits than the records'.
  """

  def __init__(self, hr: Folder | Records, lr: Folder, scale: int):
    self.hr, self.lr = hr, lr
    self.rejected = [*hr.rejected, *lr.rejected]
    self.places: list[tuple[int, int]] = []
    match = _matches(lr.names)
    left_out, left_out_hr = _left_out(lr), _left_out(hr)
    taken: dict[int, str] = {}
    for i, name in enumerate(hr.names):
      found = match(name)
      reason = f'has no low-resolution image of its name in {lr.root}'
      if _stem(name) in left_out:
        reason = f'has a low-resolution image in {lr.root} that cannot be used'
      if len(found) > 1:
        reason = f'has several low-resolution images in {lr.root}'
      elif found and found[0] in taken:
        reason = f'has the low-resolution image of {taken[found[0]]}'
      elif found:
        taken[found[0]] = name
        (height, width), (rows, columns) = hr.sizes[i], lr.sizes[found[0]]
        reason = (
          f'is {width}x{height}, and its low-resolution image {columns}x{rows}: not {scale} times '
          'as large'
        )
        if (height, width) == (scale * rows, scale * columns):
          self.places.append((i, found[0]))
          continue
      self.rejected.append(ImageError(hr.paths[i], reason))
    alone = {*range(len(lr))} - taken.keys() if isinstance(hr, Folder) else set()
    for j in sorted(alone):
      reason = f'has no image of its name in {hr.root}'
      if _stem(lr.names[j]) in left_out_hr:
        reason = f'has an image in {hr.root} that cannot be used'
      self.rejected.append(ImageError(lr.paths[j], reason))
    if not self.places:
      raise UserError(f'{hr.root} and {lr.root} have no pair; {self.rejected[0]}')
    chosen = [i for i, _ in self.places]
    self.names = [hr.names[i] for i in chosen]
    self.sizes = [hr.sizes[i] for i in chosen]
    self.identities = [hr.identities[i] for i in chosen]
    self.bits = max(hr.bits, lr.bits)

  def __len__(self) -> int:
    return len(self.places)

  def __getitem__(self, index: int) -> Raw:
    return deepen(self.hr[self.places[index][0]], self.bits)

  def low_resolution(self, index: int) -> Raw:
    """Returns the low-resolution image of an image."""
    return deepen(self.lr[self.places[index][1]], self.bits)


def _matches(names: Sequence[str]) -> Callable[[str], list[int]]:
  """Returns a function that finds equal names, or else those that only differ in the suffix."""
  exact = {name: [i] for i, name in enumerate(names)}
  stems: dict[str, list[int]] = {}
  for i, name in enumerate(names):
    stems.setdefault(_stem(name), []).append(i)
  return lambda name: exact.get(name) or stems.get(_stem(name), [])


def _stem(name: str) -> str:
  return str(Path(name).with_suffix(''))


def _left_out(source: Folder | Records) -> set[str]:
  """Returns the names, without suffix, of the files of a folder that are no part of the source."""
  if not isinstance(source, Folder):
    return set()
  paths = (error.path for error in source.rejected)
  return {_stem(str(p.relative_to(source.root))) for p in paths if source.root in p.parents}


def low_resolution(source: Source, index: int) -> Raw | None:
  """Returns the acquired low resolution of an image; None if it is to be computed."""
  if isinstance(source, Subset):
    return low_resolution(source.source, source.indices[index])
  return source.low_resolution(index) if isinstance(source, Paired) else None


def is_paired(source: Source) -> bool:
  """Whether the low resolution of a source was acquired, not computed."""
  return isinstance(source.source if isinstance(source, Subset) else source, Paired)


def deepen(image: Raw, bits: int) -> Raw:
  """Returns an 8-bit image with 16 bits: 255 becomes 65535."""
  if bits == 16 and image.dtype == np.uint8:
    return image.astype(np.uint16) * 257
  return image


def uneven(source: Source, scale: int) -> list[str]:
  """Describe the files whose sides are no multiples of the scale, and so are cut."""
  named = zip(source.names, source.sizes, strict=True)
  return [f'{name} ({w}x{h})' for name, (h, w) in named if h % scale or w % scale]


class Subset:
  """Evenly spaced images of a source."""

  def __init__(self, source: Source, count: int):
    self.source = source
    self.indices = [i * len(source) // count for i in range(count)]
    self.names = [source.names[i] for i in self.indices]
    self.bits, self.rejected = source.bits, source.rejected
    self.sizes = [source.sizes[i] for i in self.indices]
    self.identities = [source.identities[i] for i in self.indices]

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Raw:
    return self.source[self.indices[index]]


VALIDATION = 1_000_000  # the first number of the phantoms that no run trains on
NIH = 'nih'  # the name of records of NIH ChestX-ray14, `nih/SPLIT/LABEL`


def training(config: Any) -> Source:
  """Make the source that a config trains on; its images hold a patch with its margins."""
  data = config.data
  minimum = (data.patch + 2 * data.margin) * config.scale
  why = 'training crops with margins need {} pixels per side: lower config.data.patch or margin'
  return _source(config, data.train, 'train', minimum, why, lr=data.train_lr)


def validation(config: Any, *, minimum: int) -> Source:
  """Make the source that a config validates on; no side of an image is below `minimum`."""
  data = config.data
  why = 'SSIM needs {} pixels per side: use larger images'
  source = _source(config, data.val, 'validation', minimum, why, lr=data.val_lr)
  wanted = data.val_count
  return Subset(source, wanted) if 0 < wanted < len(source) else source


def of_records(name: str) -> bool:
  """Whether a source is records: `nih`, `nih/SPLIT` or `nih/SPLIT/LABEL`."""
  return name.split('/')[0] == NIH


def _source(config: Any, name: str, split: str, minimum: int, why: str, *, lr: str = '') -> Source:
  open_folder = functools.partial(Folder, channels=config.channels, stored_bits=config.data.bits)
  if of_records(name):
    wanted = name.partition('/')[2] or split
    found = Records(config.data.records, wanted, channels=config.channels)
    return Paired(found, open_folder(lr), config.scale) if lr else found
  if name != 'phantom':
    found = open_folder(name, minimum=minimum, why=why)
    return Paired(found, open_folder(lr), config.scale) if lr else found
  options = config.data.phantom
  start, count = (0, options.count) if split == 'train' else (VALIDATION, options.val_count)
  if options.size < minimum:
    raise UserError(f'config.data.phantom.size={options.size}: {why.format(minimum)}')
  return Phantoms(
    seed=options.seed,
    start=start,
    count=count,
    size=options.size,
    bits=options.bits,
    channels=config.channels,
  )


def overlap(train: Source, val: Source) -> int:
  """Count the validation images that are trained on, or show a patient that is."""
  known = set(train.identities)
  return sum(identity in known for identity in val.identities)


def _identity(path: Path) -> str:
  """Returns the patient of a file, from a name like NIH's 00000013_019.png or from DICOM.

  Other files are taken to be of one patient each.
  """
  if match := re.fullmatch(r'(\d{8})_\d{3}', path.stem):
    return match[1]
  return image_files.patient(path) or str(path.resolve())
