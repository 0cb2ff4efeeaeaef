"""The page reads films as `image_files.load` does, or refuses them; its scripts run in Node.js.

JPEG that browsers decode is not read here, but in `test_page.py`.
"""

import base64
import json
import shutil
import struct
import subprocess
import zlib
from importlib.resources import files as resources

import numpy as np
import pytest

from jaxsr.data import image_files
from jaxsr.errors import UserError
from jaxsr.export import page, runtime

pydicom = pytest.importorskip('pydicom', reason="needs the extra 'dicom'")
imagecodecs = pytest.importorskip('imagecodecs')
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

RUN = """
const fs = require('fs');
globalThis.META = {scale: 4, smallest: 16, most: 2 ** 26};
globalThis.self = globalThis;
const vm = require('vm');
delete globalThis.module;  // in which a library would put itself
delete globalThis.exports;
vm.runInThisContext(fs.readFileSync(process.argv[1], 'utf8') + `
globalThis.read = async bytes => {
  try {
    const {pixels, width, height} = await readFilm(new Blob([bytes]));
    return {pixels: [...pixels], width, height, peak: 2 ** (8 * pixels.BYTES_PER_ELEMENT) - 1};
  } catch (error) { return {line: error.message} }
};
globalThis.readIn = text => Promise.all(JSON.parse(text).map(
  each => read(new Uint8Array(Buffer.from(each, 'base64')))));`);
readIn(fs.readFileSync(0, 'utf8')).then(found => console.log(JSON.stringify(found)));
"""
SYNTAX = '1.2.840.10008.1.2.4.'
RAW = '1.2.840.10008.1.2.1'


@pytest.fixture(scope='module')
def read(tmp_path_factory):
  """Reads files by the scripts of the page: the pixels, or the line that refuses them."""
  node = shutil.which('node')
  if node is None:
    pytest.skip('needs Node.js')
  try:
    (dicom,) = runtime.read(runtime.DICOM_PARSER, ['dist/dicomParser.min.js'], folder=None)
    (jpeg,) = runtime.read(runtime.JPEG_LOSSLESS, ['release/lossless-min.js'], folder=None)
  except UserError as error:
    pytest.skip(str(error))
  path = tmp_path_factory.mktemp('scripts') / 'page.js'
  names = ('film.js', 'scans.js', 'upright.js', 'png.js', 'jpeg.js', 'dicom.js')
  own = [(resources('jaxsr.export') / 'web' / name).read_text() for name in names]
  assert set(names) < set(page._SCRIPTS)
  libraries = [page._script(dicom), page._as_object('jpegLossless', page._script(jpeg))]
  path.write_text('\n'.join([*libraries, *own]))

  def run(contents):
    text = json.dumps([base64.b64encode(content).decode() for content in contents])
    command = [node, '-e', RUN, str(path)]
    out = subprocess.run(
      command, input=text, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(out.stdout)

  return run


def check(read, folder, contents):
  """Compare the pixels of files with those of `image_files.load`."""
  for (name, content), found in zip(contents.items(), read(contents.values()), strict=True):
    path = folder / name
    path.write_bytes(content)
    image = image_files.load(path)[0][..., 0]
    assert 'line' not in found, f'{name}: {found}'
    assert found['peak'] == np.iinfo(image.dtype).max, name
    pixels = np.array(found['pixels']).reshape(found['height'], found['width'])
    assert np.array_equal(pixels, image), name


def refuse(read, cases):
  """Check the lines that refuse files."""
  contents = [content for content, _ in cases.values()]
  for (name, (_, line)), found in zip(cases.items(), read(contents), strict=True):
    assert line in found.get('line', 'was read'), f'{name}: {found.get("line", "was read")}'


def dicom(stored, bits, *, syntax=RAW, code=None, kind='MONOCHROME2', **changed):
  """Returns a radiograph; `changed` has values, or pairs of a representation and a value."""
  dataset = Dataset()
  dataset.file_meta = FileMetaDataset()
  dataset.file_meta.TransferSyntaxUID = syntax
  dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = '1.2.840.10008.5.1.4.1.1.7'
  dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = '1.2.3'
  dataset.Rows, dataset.Columns = stored.shape
  dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, kind
  dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * stored.itemsize, bits, bits - 1
  dataset.PixelRepresentation = int(stored.dtype.kind == 'i')
  for name, value in changed.items():
    if value is None:
      delattr(dataset, name)
    elif isinstance(value, tuple):
      dataset.add_new(name, *value)
    else:
      setattr(dataset, name, value)
  codes = [code] if isinstance(code, bytes) else code
  dataset.PixelData = encapsulate(codes) if codes else stored.tobytes()
  file = pydicom.filebase.DicomBytesIO()
  dataset.save_as(file, enforce_file_format=True)
  return file.getvalue()


def chunk(kind, data):
  return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(samples, color, *chunks, depth=0, packing=(0, 0), body=None):
  """Returns a PNG of 8 or 16 bits with further chunks before its pixels."""
  height, width = samples.shape[:2]
  depth = depth or 8 * samples.itemsize
  head = struct.pack('>IIBBBBB', width, height, depth, color, *packing, 0)
  rows = b''.join(b'\0' + row.astype(f'>u{samples.itemsize}').tobytes() for row in samples)
  data = chunk(b'IDAT', zlib.compress(rows) if body is None else body)
  start = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head)
  return start + b''.join(chunks) + data + chunk(b'IEND', b'')


def ramp(bits, kind=np.uint16):
  stored = np.linspace(0, 2**bits - 1, 18 * 25).astype(np.int64).reshape(18, 25)
  stored[:2], stored[-2:] = 2**bits - 1, 0
  signed = np.issubdtype(kind, np.signedinteger)
  return (stored - signed * 2 ** (bits - 1)).astype(kind)


PADDINGS = {
  12: [('US', value) for value in (0, 4095, 4096, 6144, 32768, 65535)] + [('SS', -1)],
  8: [('US', value) for value in (255, 333, 65535)],
  -12: [('SS', value) for value in (-32768, -2048, -2000, -1, 0, 2047)]
  + [('US', value) for value in (2048, 32768, 63536, 65535)],
}


@pytest.mark.parametrize('bits', PADDINGS)
def test_padding_is_what_jaxsr_takes_for_it(read, tmp_path, bits):
  stored = ramp(abs(bits), np.int16 if bits < 0 else np.uint8 if bits == 8 else np.uint16)
  raw = stored.copy()
  raw[3] = np.iinfo(stored.dtype).min if bits < 0 else np.iinfo(stored.dtype).max
  contents = {}
  for kind, value in PADDINGS[bits]:
    name = f'{kind}{value}.dcm'
    contents[name] = dicom(stored, abs(bits), PixelPaddingValue=(kind, value))
    if value == (-32768 if bits < 0 else 65535):
      contents[f'raw{name}'] = dicom(raw, abs(bits), PixelPaddingValue=(kind, value))
    for limit in (100, -1900 if kind == 'SS' else 40000):
      ends = {'PixelPaddingValue': (kind, value), 'PixelPaddingRangeLimit': (kind, limit)}
      if kind == 'SS' or limit >= 0:
        contents[f'{name}{limit}.dcm'] = dicom(stored, abs(bits), **ends)
  check(read, tmp_path, contents)


def slopes(value):
  item, group = Dataset(), Dataset()
  if value is not None:
    item.RescaleSlope = value
  group.PixelValueTransformationSequence = [item]
  return [group]


def test_slopes_in_functional_groups_are_applied(read, tmp_path):
  stored, contents = ramp(12), {}
  for name in ('SharedFunctionalGroupsSequence', 'PerFrameFunctionalGroupsSequence'):
    for syntax in (RAW, '1.2.840.10008.1.2'):
      for value in ('-1', '1', None):
        groups = {name: slopes(value), 'RescaleSlope': '-2', 'NumberOfFrames': 1}
        contents[f'{name}{value}{syntax}.dcm'] = dicom(stored, 12, syntax=syntax, **groups)
  check(read, tmp_path, contents)


def test_compressed_frames_must_be_of_the_named_kind(read, tmp_path):
  gray, deep = ramp(8, np.uint8), ramp(12)
  codes = {
    '50': imagecodecs.jpeg8_encode(gray),
    '70': imagecodecs.ljpeg_encode(gray),
    '80': imagecodecs.jpegls_encode(gray),
  }
  check(read, tmp_path, {'70.dcm': dicom(gray, 8, syntax=f'{SYNTAX}70', code=codes['70'])})
  cases = {
    f'{code}in{name}': (
      dicom(gray, 8, syntax=SYNTAX + name, code=codes[code]),
      'compressed in another way',
    )
    for name in ('50', '57', '70', '80', '81')
    for code in codes
    if code != name and not (name == '57' and code == '70') and not (name == '81' and code == '80')
  }
  color = imagecodecs.jpeg8_encode(np.dstack([gray] * 3))
  cases['color'] = (dicom(gray, 8, syntax=f'{SYNTAX}50', code=color), 'frame is in color')
  two = dicom(gray, 8, syntax=f'{SYNTAX}70', code=[codes['70']] * 2)
  cases['two'] = (two, 'several frames')
  narrow = dicom(deep, 12, syntax=f'{SYNTAX}70', code=codes['70'])
  cases['narrow'] = (narrow, 'stores 12 bits, its compressed frame 8')
  scan = codes['70'].index(b'\xff\xda')
  last = scan + 9  # the point transform
  shifted = codes['70'][:last] + b'\2' + codes['70'][last + 1 :]
  cases['shifted'] = (dicom(gray, 8, syntax=f'{SYNTAX}70', code=shifted), 'point transform')
  refuse(read, cases)


def test_elements_that_jaxsr_refuses_are_refused(read):
  stored = ramp(12)
  mixed = ramp(12, np.int16)
  mixed[0] &= 0xFFF  # without the extension of the sign, which others have
  mixed[0, 0] = 0xFFF
  refuse(
    read,
    {
      'frames': (dicom(stored, 12, NumberOfFrames=0), 'of 0 frames'),
      'slopes': (dicom(stored, 12, RescaleSlope=['-1', '-1']), 'several values in RescaleSlope'),
      'padding': (dicom(stored, 12, PixelPaddingValue=('US', [1, 2])), 'several values in Pixel'),
      'rows': (dicom(stored, 12, Rows=None), 'lacks Rows'),
      'mixed': (dicom(mixed, 12), 'more than 12 bits'),
      'cut': (dicom(stored, 12)[:-2], 'pixels are missing'),
      'empty': (b'', 'is empty'),
    },
  )


def test_bytes_behind_the_pixels_and_empty_tables_are_no_damage(read, tmp_path):
  stored, whole = ramp(12), dicom(ramp(12), 12)
  code = dicom(
    stored, 12, syntax=f'{SYNTAX}70', code=imagecodecs.ljpeg_encode(stored, bitspersample=12)
  )
  tails = (bytes(7), b'garbage behind the pixels', b'\xff' * 9, bytes(600))
  contents = {f'{i}.dcm': whole + tail for i, tail in enumerate(tails)}
  contents |= {f'code{i}.dcm': code + tail for i, tail in enumerate(tails)}
  contents['table.dcm'] = dicom(stored, 12, ModalityLUTSequence=[])
  check(read, tmp_path, contents)


def exif(value, order='<', kind=3, count=1):
  start = b'II*\0\x08\0\0\0' if order == '<' else b'MM\0*\0\0\0\x08'
  field = struct.pack(order + {1: 'Bxxx', 3: 'Hxx', 4: 'I'}.get(kind, 'I'), value)
  return start + struct.pack(order + 'HHHI', 1, 274, kind, count) + field + bytes(4)


def orientations():
  """Returns chunks by which a PNG may say how it is turned."""
  profile = (b'Exif\0\0' + exif(6)).hex()
  profile = f'\nexif\n{len(profile) // 2:8d}\n{profile[:72]}\n{profile[72:]}\n'.encode()
  xmp = b'XML:com.adobe.xmp\0', b'<rdf:Description tiff:Orientation="6"/>'
  name = b'Raw profile type exif\0'
  found = {f'short{order}{value}': [exif(value, order)] for order in '<>' for value in range(10)}
  found |= {f'{order}{kind}': [exif(8, order, kind)] for order in '<>' for kind in (1, 4)}
  found |= {
    'prefix': [b'Exif\0\0' * 2 + exif(6)],
    'twice': [exif(6), exif(3)],
    'cut': [exif(6)[:15]],
  }
  found |= {'none': [b''], 'other': [b'no EXIF']}
  chunks = {key: [chunk(b'eXIf', data) for data in parts] for key, parts in found.items()}
  chunks['text'] = [chunk(b'tEXt', name + profile)]
  chunks['packed'] = [chunk(b'zTXt', name + b'\0' + zlib.compress(profile))]
  chunks['xmp'] = [chunk(b'iTXt', xmp[0] + bytes(4) + xmp[1])]
  chunks['packed xmp'] = [chunk(b'iTXt', xmp[0] + b'\1\0\0\0' + zlib.compress(xmp[1]))]
  chunks['both'] = [chunk(b'eXIf', exif(3)), *chunks['xmp'], *chunks['text']]
  chunks['upright'] = [chunk(b'eXIf', exif(0)), *chunks['xmp']]
  return chunks


def test_png_is_turned_upright_as_jaxsr_turns_it(read, tmp_path):
  gray = ramp(8, np.uint8)
  contents = {f'{key}.png': png(gray, 0, *parts) for key, parts in orientations().items()}
  check(read, tmp_path, contents)
  odd = {
    'two values': chunk(b'eXIf', exif(6, count=2)),
    'a text': chunk(b'eXIf', exif(6, kind=2)),
    'another order': chunk(b'eXIf', b'MM*\0' + exif(6)[4:]),
    'a wrong profile': chunk(b'tEXt', b'Raw profile type exif\0\nexif\n9\nxyz'),
    'a bomb': chunk(b'zTXt', b'Raw profile type exif\0\0' + zlib.compress(bytes(2**26))),
  }
  line = 'has an orientation in a form'
  refuse(read, {key: (png(gray, 0, part), line) for key, part in odd.items()})


def test_significant_bits_are_the_most_of_all_channels(read, tmp_path):
  deep = np.dstack([ramp(14)] * 3)
  cases = {
    f'{i}.png': png(deep, 2, chunk(b'sBIT', bytes(bits)))
    for i, bits in enumerate(((12, 13, 14), (14, 12, 13), (14, 14, 14)))
  }
  twice = [chunk(b'sBIT', bytes([bits])) for bits in (16, 14)]
  cases['twice.png'] = png(ramp(14), 0, *twice)
  check(read, tmp_path, cases)


def test_png_that_jaxsr_refuses_is_refused(read):
  gray = ramp(8, np.uint8)
  palette = chunk(b'PLTE', bytes(768))
  head = struct.pack('>IIBBBBB', 25, 18, 8, 0, 0, 0, 0)
  refuse(
    read,
    {
      'filter': (png(gray, 0, packing=(0, 1)), 'its header has values'),
      'method': (png(gray, 0, packing=(1, 0)), 'its header has values'),
      'depth': (png(gray, 2, depth=4), 'its header has values'),
      'palette': (png(gray, 3, chunk(b'PLTE', bytes(900))), 'more than 256 colors'),
      'palettes': (png(gray, 3, palette, palette), 'two palettes'),
      'headers': (png(gray, 0, chunk(b'IHDR', head)), 'two headers'),
      'chunk': (png(gray, 0, chunk(b'ABCD', b'x')), 'the critical chunk ABCD'),
      'frames': (png(gray, 0, chunk(b'acTL', struct.pack('>II', 2, 0))), 'is an animation'),
      'size': (png(np.zeros((2, 2049), np.uint8), 0), 'each side needs 16'),
      'large': (png(np.zeros((2048, 2049), np.uint8), 0), '4,194,304 at most'),
    },
  )


def test_pixels_are_inflated_as_far_as_they_are_needed(read, tmp_path):
  gray = ramp(8, np.uint8)
  rows = b''.join(b'\0' + row.tobytes() for row in gray)
  packer = zlib.compressobj(9)
  bomb = packer.compress(rows) + b''.join(packer.compress(bytes(2**24)) for _ in range(5))
  bomb += packer.flush()
  contents = {
    'bomb.png': png(gray, 0, body=bomb),
    'more.png': png(gray, 0, body=zlib.compress(rows + bytes(99))),
    'tail.png': png(gray, 0, body=zlib.compress(rows) + bytes(4)),
  }
  check(read, tmp_path, contents)
  (found,) = read([png(gray, 0, body=bomb[:-4] + bytes(4))])  # an end that is not reached
  assert np.array_equal(found.get('pixels'), gray.ravel())
