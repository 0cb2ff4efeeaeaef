"""Get a feature network's published weights once, into a cache, and believe only their SHA-256."""

import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from jaxsr import files
from jaxsr.errors import UserError
from jaxsr.files import atomic, make_folder

TIMEOUT = 30  # seconds without a byte
_CHUNK = 1 << 20


class Entry(NamedTuple):
  """A published file; without a known SHA-256 it is not fetched."""

  url: str
  sha256: str
  variant: str


_TIMM = 'https://huggingface.co/timm/{}/resolve/main/model.safetensors'
PUBLISHED = {
  'mobilenet_v2': Entry(
    _TIMM.format('mobilenetv2_100.ra_in1k'),
    '55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e',
    'torchvision',
  ),
  'vgg16': Entry(
    _TIMM.format('vgg16.tv_in1k'),
    '57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8',
    'torchvision',
  ),
  'vgg19': Entry(_TIMM.format('vgg19.tv_in1k'), '', 'torchvision'),
}


def cache() -> Path:
  """Name the folder that weights are kept in: `$JAXSR_CACHE`, or `jaxsr` in the user's cache."""
  if own := os.environ.get('JAXSR_CACHE'):
    return Path(own)
  return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'jaxsr'


def get(network: str) -> Path:
  """Give the file of a network's published weights, from the cache or from their publisher.

  Raises UserError where it cannot be had, or is not what was published.
  """
  entry = PUBLISHED[network]
  by_hand = f'or give a file: config.content.{network}.weights=FILE.safetensors (or .npz)'
  path = cache() / f'{network}-{entry.sha256[:8]}.safetensors'
  if path.is_file() and files.sha256(path) == entry.sha256:
    return path
  if not entry.sha256:
    raise UserError(
      f'{network}: no SHA-256 of {entry.url} is known, so it is not fetched: fetch and check it '
      f'yourself, {by_hand}'
    )
  make_folder(path.parent)
  print(f'{network}: fetching {entry.url} to {path}', flush=True)
  with atomic(path) as temporary:
    try:
      found = _download(entry.url, temporary)
    except (urllib.error.URLError, OSError, ValueError) as error:
      raise UserError(
        f'{network}: cannot fetch {entry.url} ({error}): try again with a network, {by_hand}'
      ) from error
    if found != entry.sha256:
      raise UserError(
        f'{network}: {entry.url} has SHA-256 {found}, not {entry.sha256}: it was changed, or not '
        f'all of it came; try again, {by_hand}'
      )
  return path


def _download(url: str, path: Path) -> str:
  """Write what is behind an address to a file; return its SHA-256."""
  digest = hashlib.sha256()
  with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open('wb') as file:
    while chunk := response.read(_CHUNK):
      digest.update(chunk)
      file.write(chunk)
  return digest.hexdigest()
