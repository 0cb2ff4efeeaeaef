"""`jaxsr doctor`: check the installation."""

import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

import jaxsr
from jaxsr import files, runtime
from jaxsr.commands.options import Doctor
from jaxsr.errors import UserError, count, one_line

DISTRIBUTION, OTHER = 'jaxsr-xray', 'jaxsr'  # OTHER is symbolic regression on PyPI
# It is not on PyPI; where it is installed, pip finds its extras by its name.
INSTALL = 'run pip install --force-reinstall . in the folder of the checkout'
# The modules of each optional group of packages, and its name in pyproject.toml.
EXTRAS = {
  'dicom': ('pydicom', 'openjpeg', 'jpeg_ls'),
  'nih': ('apache_beam', 'tensorflow_datasets', 'array_record', 'isal', 'numba'),
  'report': ('jinja2', 'matplotlib'),
  'reader': ('onnxruntime',),
  'study': ('jinja2', 'matplotlib'),
  'conditions': ('matplotlib', 'skimage'),
}


def run(options: Doctor) -> int:
  """Print the result of each check; returns 1 if one of them failed."""
  failed = 0
  checks: tuple[tuple[str, Callable[[], list[str]]], ...] = (
    ('versions', _versions),
    ('installation', _installation),
    ('devices', _devices),
    ('optional packages', _extras),
    ('pretrained models', _weights),
    ('write test', lambda: _write_test(options.output)),
  )
  for title, check in checks:
    try:
      lines, mark = check(), 'ok'
    except Exception as error:  # whatever a broken installation raises is a finding
      lines, mark = [str(error) if isinstance(error, UserError) else _named(error)], 'FAILED'
      failed += 1
    print(f'{title}: {mark}')
    for line in lines:
      print(f'  {line}')
  print(f'{count(failed, "check")} failed' if failed else 'all checks passed')
  return int(failed > 0)


def _named(error: Exception) -> str:
  return f'{type(error).__name__}: {one_line(error)}'


def _versions() -> list[str]:
  """Returns the versions that results depend on; raises if a package is missing."""
  lines = [f'python {platform.python_version()} on {platform.platform()}']
  lines.append(f'jaxsr {jaxsr.__version__} in {Path(jaxsr.__file__).parent}')
  missing = []
  for name in runtime.PACKAGES:
    try:
      lines.append(f'{name} {importlib.metadata.version(name)}')
    except importlib.metadata.PackageNotFoundError:
      missing.append(name)
  if missing:
    raise UserError(f'{", ".join(missing)}: not installed; {INSTALL}')
  return lines


def _installation() -> list[str]:
  """Returns how jaxsr is installed; raises if the other project of that name is installed."""
  try:
    other = importlib.metadata.distribution(OTHER)
  except importlib.metadata.PackageNotFoundError:
    other = None
  if other is not None and not _is_this_project(other):
    raise UserError(
      f'the distribution {OTHER!r} {other.version} is another project (symbolic regression) with '
      f'the same import name; run pip uninstall {OTHER}, then {INSTALL}'
    )
  try:
    return [f'{DISTRIBUTION} {importlib.metadata.version(DISTRIBUTION)}']
  except importlib.metadata.PackageNotFoundError:
    here = Path(jaxsr.__file__).parent
    return [
      f'{DISTRIBUTION} is not installed; jaxsr runs from {here}',
      f"hints such as pip install '{DISTRIBUTION}[dicom]' need pip install -e {here.parent} first",
    ]


def _is_this_project(distribution: importlib.metadata.Distribution) -> bool:
  """Whether a distribution has this project's description: early versions were named `jaxsr`."""
  return 'radiograph' in (distribution.metadata['Summary'] or '').lower()


def _devices() -> list[str]:
  """Returns the devices that JAX found, with their memory, after a computation on each."""
  import jax
  import jax.numpy as jnp

  lines = [f'{count(runtime.cpu_count(), "CPU core")}, {_memory()}']
  for device in jax.local_devices():
    found = float(jnp.sum(jax.device_put(jnp.ones((8, 8)), device)))
    if found != 64:
      raise UserError(f'{device}: the sum of 64 ones is {found}')
    limit = (device.memory_stats() or {}).get('bytes_limit')
    memory = f', {limit / 2**30:.1f} GiB' if limit else ''
    lines.append(f'{device.id}: {device.device_kind} ({device.platform}){memory}')
  return lines


def _memory() -> str:
  """Returns the memory of the machine, if the system reports it."""
  try:
    size = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  except (AttributeError, ValueError, OSError):
    return 'memory unknown'
  return f'{size / 2**30:.1f} GiB of memory'


def _extras() -> list[str]:
  """Returns which groups of optional packages are complete; a missing one is no failure."""
  lines = []
  for extra, modules in EXTRAS.items():
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    state = 'installed'
    if missing:
      state = f"missing {', '.join(missing)}: pip install '{DISTRIBUTION}[{extra}]'"
    lines.append(f'{extra}: {state}')
  return lines + _decoders()


def _decoders() -> list[str]:
  """Returns the compressed DICOM transfer syntaxes that can be decoded."""
  if importlib.util.find_spec('pydicom') is None:
    return []
  from pydicom import uid
  from pydicom.pixels.decoders.base import get_decoder

  syntaxes = {
    'JPEG': uid.JPEGBaseline8Bit,
    'JPEG lossless': uid.JPEGLosslessSV1,
    'JPEG-LS': uid.JPEGLSLossless,
    'JPEG 2000': uid.JPEG2000Lossless,
    'RLE': uid.RLELossless,
  }
  lines = []
  for name, syntax in syntaxes.items():
    decoder = get_decoder(syntax)
    plugins = ', '.join(decoder.available_plugins) if decoder.is_available else 'no plug-in'
    lines.append(f'DICOM {name}: {plugins}')
  return lines


def _weights() -> list[str]:
  """Returns the SHA-256 of each pretrained model; raises if one differs from its model card."""
  from jaxsr.inference import package

  row = re.compile(rf'\| `{re.escape(package.WEIGHTS)}` \| `([0-9a-f]{{64}})` \|')
  lines = []
  for name in package.names():
    folder = package.find(name)
    assert folder is not None
    found = files.sha256(folder / package.WEIGHTS)
    stated = row.search((folder / package.CARD).read_text(encoding='utf-8'))
    if stated is None or stated[1] != found:
      told = stated[1] if stated else 'no SHA-256'
      raise UserError(f'{folder / package.WEIGHTS}: SHA-256 is {found}, its card has {told}')
    lines.append(f'{name}: {found}')
  if not lines:
    raise UserError(f'no pretrained model found; {INSTALL}')
  return lines


def _write_test(folder: Path) -> list[str]:
  """Write, read and delete a file of 1 MiB."""
  content = os.urandom(2**20)
  folder = folder.resolve()
  files.make_folder(folder)
  path = folder / f'.jaxsr-doctor-{os.getpid()}'
  try:
    with files.atomic(path) as temporary:
      temporary.write_bytes(content)
    if path.read_bytes() != content:
      raise UserError(f'{path}: the bytes read differ from those written')
  finally:
    path.unlink(missing_ok=True)
  return [f'{folder} is writable']
