"""Download the published weights of feature networks into a cache, and verify their SHA-256."""

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
  """A published file; one without a known SHA-256 is not downloaded."""

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
  """Returns the folder of the cache: `$JAXSR_CACHE`, or `jaxsr` in the user's cache."""
  if own := os.environ.get('JAXSR_CACHE'):
    return Path(own)
  return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'jaxsr'


def get(network: str, *, flag: str) -> Path:
  """Returns the file of a network's published weights; downloads it if it is not in the cache.

  Args:
    network: A key of `PUBLISHED`.
    flag: The option by which the user can give a file instead, for messages.

  Raises:
    UserError: The file cannot be downloaded, or its SHA-256 is wrong.
  """
  entry = PUBLISHED[network]
  by_hand = f'or set {flag} to a .safetensors or .npz file'
  path = cache() / f'{network}-{entry.sha256[:8]}.safetensors'
  if path.is_file() and files.sha256(path) == entry.sha256:
    return path
  if not entry.sha256:
    raise UserError(
      f'{network}: no SHA-256 of {entry.url} is known, so it is not downloaded; download and '
      f'check it yourself, {by_hand}'
    )
  make_folder(path.parent)
  print(f'{network}: downloading {entry.url} to {path}', flush=True)
  with atomic(path) as temporary:
    try:
      found = _download(entry.url, temporary)
    except (urllib.error.URLError, OSError, ValueError) as error:
      raise UserError(
        f'{network}: cannot download {entry.url} ({error}); connect to the internet, {by_hand}'
      ) from error
    if found != entry.sha256:
      raise UserError(
        f'{network}: {entry.url} has SHA-256 {found}, not {entry.sha256}: the file was changed or '
        f'the download is incomplete; try again, {by_hand}'
      )
  return path


def _download(url: str, path: Path) -> str:
  """Download a file; returns its SHA-256."""
  digest = hashlib.sha256()
  with urllib.request.urlopen(url, timeout=TIMEOUT) as response, path.open('wb') as file:
    while chunk := response.read(_CHUNK):
      digest.update(chunk)
      file.write(chunk)
  return digest.hexdigest()
