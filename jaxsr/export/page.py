"""Export a model as one HTML file that enlarges films in a browser, without a connection."""

import base64
import gzip
import hashlib
import html
import json
import re
import tempfile
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from jaxsr import __version__
from jaxsr.data import image_files
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError
from jaxsr.export import onnx_file, runtime
from jaxsr.export.exportable import SMALLEST, Exportable

_SIDE = 128  # low-resolution pixels that a tile contributes along each axis: progress shows early
_MOST = 64 * 2**20  # pixels of a result: a browser's memory holds two, and smaller copies
_PHANTOM = {'seed': 7, 'index': 0, 'size': 192, 'bits': 16}
_SCRIPTS = ('start.js', 'film.js', 'scans.js', 'upright.js', 'png.js', 'jpeg.js', 'dicom.js')
_SCRIPTS += ('network.js', 'view.js', 'page.js')
_POLICY = (
  "default-src 'none'; connect-src 'none'; form-action 'none'; base-uri 'none'; "
  'img-src blob: data:; worker-src blob:; style-src {styles}; '
  "script-src {scripts} 'wasm-unsafe-eval' blob:"
)
_EXPORTS = re.compile(r'export\{([^}]*)\};?\s*$')
_SOURCE_MAP = re.compile(r'^//# sourceMappingURL=.*$', re.MULTILINE)
_FIELD = re.compile(r'\{\{([A-Z]+)\}\}')


def serialize(exportable: Exportable, *, libraries: Path | None = None) -> tuple[bytes, float]:
  """Build the page of a model; the ONNX file inside is compared with JAX.

  Args:
    exportable: The model, for gray images of free sizes.
    libraries: A folder with the archives of `runtime.LIBRARIES`; None lets npm download them.

  Returns:
    The content of the file, and the largest difference relative to the largest value.

  Raises:
    UserError: The network cannot run in tiles or is for RGB, or a library is missing.
    MismatchError: The ONNX file differs from JAX.
  """
  facts, model = exportable.facts, exportable.model
  if not facts['margin'].isdigit():
    raise UserError(f'{model.name}: {model.architecture} must see the whole image, not its tiles')
  if exportable.size is not None:
    raise UserError('--size: the page needs free sizes; leave it out')
  if model.channels != 1:
    raise UserError(f'{model.name} is for RGB images; the page takes gray images')
  code, wasm = runtime.read(
    runtime.ONNXRUNTIME,
    ['dist/ort.wasm.bundle.min.mjs', 'dist/ort-wasm-simd-threaded.wasm'],
    folder=libraries,
  )
  (dicom,) = runtime.read(runtime.DICOM_PARSER, ['dist/dicomParser.min.js'], folder=libraries)
  (jpeg,) = runtime.read(runtime.JPEG_LOSSLESS, ['release/lossless-min.js'], folder=libraries)
  charls, charls_wasm = runtime.read(
    runtime.JPEG_LS,
    ['dist/charlswasm_decode.js', 'dist/charlswasm_decode.wasm'],
    folder=libraries,
  )
  content, difference = onnx_file.serialize(exportable)
  decoders = [_script(dicom), _as_object('jpegLossless', _script(jpeg)), _script(charls)]
  scripts = [*decoders, *map(_own, _SCRIPTS)]
  data = [
    _data('model', _packed(content)),
    _data('wasm', _packed(wasm)),
    _data('charls', _packed(charls_wasm)),
    _data('phantom', base64.b64encode(_sample()).decode()),
    _data('runtime', _script(code)),
    _data('worker', _own('worker.js')),
    _data('licenses', _own('licenses.txt')),
    *(f'<script>{script}</script>' for script in scripts),
  ]
  style = _own('style.css')
  policy = _POLICY.format(styles=_hash(style), scripts=' '.join(map(_hash, scripts)))
  fields = {
    'CSP': policy,
    'NAME': html.escape(model.name),
    'STYLE': style,
    'ABOUT': f'Super-resolution of chest radiographs, x{model.scale}, in your browser',
    'META': json.dumps(_meta(exportable, facts)).replace('<', '\\u003c'),
    'FOOTER': html.escape(_footer(exportable, facts)),
    'DATA': '\n'.join(data),
  }
  page = _FIELD.sub(lambda found: fields[found[1]], _own('page.html'))
  return page.encode(), difference


def _meta(exportable: Exportable, facts: dict[str, str]) -> dict[str, Any]:
  """Returns the settings that the scripts of the page read."""
  made = f'jaxsr {__version__}; {facts["network"]} x{facts["scale"]}; weights {facts["weights"]}'
  kept = '' if exportable.precision == 'float32' else f'{exportable.precision}; '
  return {
    'scale': exportable.model.scale,
    'margin': int(facts['margin']),
    'side': _SIDE,
    'smallest': SMALLEST,
    'most': _MOST,
    'comment': f'{made}; {kept}in a browser; for research, not for diagnosis',
  }


def _footer(exportable: Exportable, facts: dict[str, str]) -> str:
  count = f'{exportable.model.parameters:,} parameters, {exportable.precision}'
  used = ', '.join(f'{each.name} {each.version}' for each in runtime.LIBRARIES)
  return (
    f'{facts["network"]} x{facts["scale"]}, {count}, weights {facts["weights"]}. '
    f'jaxsr {__version__} (Apache-2.0). Contains {used}.'
  )


def _own(name: str) -> str:
  """Returns a file of the folder `web`."""
  return (resources('jaxsr.export') / 'web' / name).read_text(encoding='utf-8')


def _script(content: bytes) -> str:
  """Returns a library's code without the address of its source map, which would be fetched."""
  text = _SOURCE_MAP.sub('', content.decode())
  if '</script' in text.lower():
    raise ValueError('a library would end the script that contains it')
  return text


def _as_object(name: str, module: str) -> str:
  """Returns the code of a module as a script that defines an object with its exports."""
  found = _EXPORTS.search(module)
  if found is None:
    raise ValueError(f'{name}: the module has no list of exports')
  pairs = [part.split(' as ') for part in found[1].split(',')]
  exports = ', '.join(f'{pair[-1].strip()}: {pair[0].strip()}' for pair in pairs)
  return f'const {name} = (() => {{{module[: found.start()]}; return {{{exports}}};}})();'


def _packed(content: bytes) -> str:
  return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _data(name: str, text: str) -> str:
  return f'<script type="text/plain" id="{name}">{text}</script>'


def _hash(text: str) -> str:
  """Returns the source expression of a content security policy that allows one script or style."""
  return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _sample() -> bytes:
  """Returns a phantom as a PNG of 16 bits."""
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / 'phantom.png'
    image_files.write(path, phantom(**_PHANTOM)[..., None])
    return path.read_bytes()
