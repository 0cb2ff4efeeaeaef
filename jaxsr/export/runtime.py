"""The JavaScript libraries of the page, as npm publishes them, checked against their SHA-256."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from jaxsr import files
from jaxsr.errors import UserError, first_line
from jaxsr.perceptual.download import cache

_SECONDS = 300  # for npm to download a package


class Library(NamedTuple):
  """A package of npm."""

  name: str
  version: str
  sha256: str  # of the archive

  @property
  def archive(self) -> str:
    """The name that `npm pack` gives to the archive."""
    return f'{self.name.removeprefix("@").replace("/", "-")}-{self.version}.tgz'


ONNXRUNTIME = Library(
  'onnxruntime-web',
  '1.30.0',
  'd2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71',
)
DICOM_PARSER = Library(
  'dicom-parser',
  '1.8.21',
  '8d4656b35d15174bc549b69a42d78cde60c0b73fcc72bf80c47ffcacd9bd4ca9',
)
JPEG_LOSSLESS = Library(
  'jpeg-lossless-decoder-js',
  '2.1.2',
  '5ef03afb9d0b6fce21c534a345024a7285cc4661a84d2ac6a72d0ebb89a36303',
)
JPEG_LS = Library(
  '@cornerstonejs/codec-charls',
  '1.2.7',
  '0383755533c104b171b3c0e2bcc45c3c5e9c317e7e6f35ffef38a74371bfa93f',
)
LIBRARIES = (ONNXRUNTIME, DICOM_PARSER, JPEG_LOSSLESS, JPEG_LS)


def read(library: Library, members: list[str], *, folder: Path | None) -> list[bytes]:
  """Returns files of a library.

  Args:
    library: The library.
    members: The names of the files in its archive.
    folder: A folder with the archives, as `npm pack` writes them. None: the cache, which npm fills
      once.

  Raises:
    UserError: The archive is missing, npm is missing or fails, or the SHA-256 is wrong.
  """
  path = _fetch(library) if folder is None else folder / library.archive
  try:
    content = path.read_bytes()
  except OSError as error:
    raise UserError(
      f'{path}: is missing; get it with: npm pack {library.name}@{library.version}'
    ) from error
  if hashlib.sha256(content).hexdigest() != library.sha256:
    raise UserError(f'{path}: is not the published archive (its SHA-256 differs); delete it')
  with tarfile.open(fileobj=io.BytesIO(content)) as archive:
    found = [archive.extractfile(f'package/{name}') for name in members]
    return [file.read() for file in found if file is not None]


def _fetch(library: Library) -> Path:
  """Returns the archive in the cache; npm downloads it the first time."""
  target = cache() / library.archive
  if target.is_file():
    return target
  npm = shutil.which('npm')
  wanted = f'{library.name}@{library.version}'
  by_hand = f'give a folder with the archives of `npm pack {wanted}` ... by --runtime'
  if npm is None:
    raise UserError(f'the page needs {wanted}, and npm is not installed; {by_hand}')
  files.make_folder(target.parent)
  with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
    command = [npm, 'pack', '--silent', '--ignore-scripts', '--pack-destination', temporary, wanted]
    try:
      subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
      (Path(temporary) / library.archive).replace(target)
    except subprocess.SubprocessError as error:
      said = first_line(Exception(getattr(error, 'stderr', '') or error))
      raise UserError(f'npm could not download {wanted} ({said}); {by_hand}') from error
  return target
