// Read and write films: {pixels, width, height, bits}, gray levels over the full range of
// Uint8Array or Uint16Array, 0 for black. `bits` is the number of bits of the file's values.

const IMPLICIT = '1.2.840.10008.1.2', EXPLICIT = '1.2.840.10008.1.2.1';
const BIG_ENDIAN = '1.2.840.10008.1.2.2', DEFLATED = '1.2.840.10008.1.2.1.99';
const JPEG_BASELINE = '1.2.840.10008.1.2.4.50';
const JPEG_LOSSLESS = ['1.2.840.10008.1.2.4.57', '1.2.840.10008.1.2.4.70'];
const JPEG_LS = ['1.2.840.10008.1.2.4.80', '1.2.840.10008.1.2.4.81'];
const REQUIRED = {
  SamplesPerPixel: 'x00280002', PhotometricInterpretation: 'x00280004', Rows: 'x00280010',
  Columns: 'x00280011', BitsAllocated: 'x00280100', BitsStored: 'x00280101',
  PixelRepresentation: 'x00280103',
};

async function pipe(bytes, stream) {
  const response = new Response(new Blob([bytes]).stream().pipeThrough(stream));
  return new Uint8Array(await response.arrayBuffer());
}

async function readFilm(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (PNG_START.every((value, i) => bytes[i] === value)) return readPng(bytes);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return readJpeg(bytes);
  if (String.fromCharCode(...bytes.subarray(128, 132)) === 'DICM') return readDicom(bytes);
  if (beginsWithElement(bytes)) {
    throw new Error('is DICOM without a preamble, which this page does not read: use jaxsr upscale');
  }
  throw new Error('is no PNG, JPEG or DICOM file');
}

// Whether a file begins with an element of DICOM's first groups, as those without preamble do.
function beginsWithElement(bytes) {
  if (bytes.length < 128 || ![2, 8].includes(bytes[0]) || bytes[1]) return false;
  const [size, kind] = [bytes[4] | bytes[5] << 8, String.fromCharCode(bytes[4], bytes[5])];
  return /^[A-Z]{2}$/.test(kind) || size <= 256 && !bytes[6] && !bytes[7] && bytes[2] <= 0x70;
}

// Turn a film upright, by the EXIF tag 274.
function turned(film, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return film;
  const {width, height} = film, isTurned = orientation >= 5;
  const [wide, high] = isTurned ? [height, width] : [width, height];
  const flipsX = [2, 3, 6, 7].includes(orientation), flipsY = [3, 4, 7, 8].includes(orientation);
  const pixels = new film.pixels.constructor(wide * high);
  for (let y = 0; y < high; y++) for (let x = 0; x < wide; x++) {
    const [column, row] = [flipsX ? wide - 1 - x : x, flipsY ? high - 1 - y : y];
    pixels[y * wide + x] = film.pixels[isTurned ? column * width + row : row * width + column];
  }
  return {...film, pixels, width: wide, height: high};
}

// Refuse an image before its pixels are decoded.
function checkSize(width, height) {
  const millions = width * height / 1e6, result = millions * META.scale ** 2;
  if (!width || !height) throw new Error('is damaged: it has no pixels');
  if (Math.min(width, height) < META.smallest) {
    throw new Error(`has ${width}×${height} pixels; each side needs ${META.smallest} or more`);
  }
  if (result > META.most / 1e6) {
    throw new Error(`has ${width}×${height} pixels, which would become ${Math.round(result)} ` +
      `megapixels; this page makes ${Math.floor(META.most / 1e6)} at most. Use jaxsr upscale`);
  }
}

// Map 0..from to 0..to, rounded to the nearest, in place.
function stretch(pixels, from, to) {
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = Math.floor((pixels[i] * to + (from >> 1)) / from);
  }
}

function checkGray(r, g, b, slack = 0) {
  if (Math.max(r, g, b) - Math.min(r, g, b) > slack) {
    throw new Error('is in color; this network is for gray films');
  }
}

// ---- DICOM: the rules of jaxsr/data/dicom.py

async function readDicom(bytes) {
  let set;
  try {
    set = dicomParser.parseDicom(bytes);
  } catch {
    if (dicomSyntax(bytes) === DEFLATED) throw unknownSyntax(DEFLATED);
    throw new Error('is damaged: its DICOM elements cannot be read');
  }
  const number = tag => set.uint16(tag), text = tag => (set.string(tag) || '').trim();
  const width = number('x00280011'), height = number('x00280010');
  checkSize(width, height);
  const stored = number('x00280101'), allocated = number('x00280100');
  const kind = text('x00280004'), element = set.elements.x7fe00010;
  const missing = Object.keys(REQUIRED).filter(
    name => name === 'PhotometricInterpretation' ? !kind : number(REQUIRED[name]) === undefined);
  if (missing.length) {
    throw new Error(`is DICOM that lacks ${missing.join(', ')}, without which pixels mean nothing`);
  }
  if (number('x00280002') !== 1 || !/^MONOCHROME[12]$/.test(kind)) {
    throw new Error('is DICOM in color; this network is for gray films');
  }
  if (+(text('x00280008') || 1) > 1) throw new Error('is DICOM of several frames; split it first');
  if (set.elements.x00283000) throw new Error('has a modality look-up table: use jaxsr upscale');
  if (!element) throw new Error('is DICOM without pixels');
  if (!(stored >= 1 && stored <= 16) || (number('x00280102') ?? stored - 1) !== stored - 1 ||
      ![8, 16].includes(allocated)) {
    throw new Error(`stores ${stored} of ${allocated} bits: use jaxsr upscale`);
  }
  if (stored > allocated) {
    throw new Error(`is damaged: it allocates ${allocated} bits and stores ${stored} of them`);
  }
  if (kind === 'MONOCHROME2' && text('x20500020') === 'INVERSE') {
    throw new Error('is MONOCHROME2 with PresentationLUTShape INVERSE, which contradict each other ' +
      'on whether the largest value is white; correct one');
  }
  const values = await dicomValues(bytes, set, element, {allocated, width, height});
  const signed = number('x00280103') === 1;
  const negative = +(text('x00281053') || 1) < 0, inverted = kind === 'MONOCHROME1';
  const isPadding = padding(set, stored, signed);
  const top = 2 ** stored - 1, half = 2 ** (stored - 1);
  const pixels = stored <= 8 ? new Uint8Array(values.length) : new Uint16Array(values.length);
  const peak = stored <= 8 ? 255 : 65535;
  for (let i = 0; i < pixels.length; i++) {
    let value = values[i] & top;
    if (isPadding(value)) continue;
    const above = values[i] >> stored, extended = signed && value >= half;
    if (above && !(extended && above === 2 ** (allocated - stored) - 1)) {
      throw new Error(`has values of more than ${stored} bits: use jaxsr upscale`);
    }
    if (signed) value = value >= half ? value - half : value + half;
    if (negative !== inverted) value = top - value;
    pixels[i] = Math.floor((value * peak + (top >> 1)) / top);
  }
  return {pixels, width, height, bits: stored <= 8 ? 8 : 16};
}

// Returns the transfer syntax of a file whose elements may be damaged.
function dicomSyntax(bytes) {
  try {
    return (dicomParser.readPart10Header(bytes).string('x00020010') || '').trim();
  } catch {
    return '';
  }
}

function unknownSyntax(syntax) {
  return new Error(`is DICOM compressed as ${syntax}: use jaxsr upscale`);
}

// Returns the stored values without a sign. A compressed frame has a size and a depth of its own.
async function dicomValues(bytes, set, element, {allocated, width, height}) {
  const count = width * height;
  const syntax = (set.string('x00020010') || '').trim();
  const Kind = allocated === 8 ? Uint8Array : Uint16Array;
  let values;
  if ([IMPLICIT, EXPLICIT, BIG_ENDIAN].includes(syntax)) {
    const start = bytes.byteOffset + element.dataOffset, size = count * allocated / 8;
    if (element.length < size) throw new Error('is damaged: pixels are missing');
    values = new Kind(bytes.buffer.slice(start, start + size));
    if (syntax === BIG_ENDIAN) swapBytes(values, element.vr);
    return values;
  }
  if (syntax !== JPEG_BASELINE && ![...JPEG_LOSSLESS, ...JPEG_LS].includes(syntax)) {
    throw unknownSyntax(syntax);
  }
  const data = fragments(set, element), frame = jpegFrame(data);
  const fits = found => found.width === width && found.height === height;
  if (!fits(frame) || frame.bits > allocated) {
    throw new Error(`is damaged: it has ${width}×${height} pixels of ${allocated} bits, its ` +
      `compressed frame ${frame.width}×${frame.height} of ${frame.bits}`);
  }
  if (syntax === JPEG_BASELINE) {
    const film = await readJpeg(data);
    if (film.remark) throw lost();
    return film.pixels;
  }
  try {
    const raw = await decodeLossless(data, JPEG_LS.includes(syntax));
    values = frame.bits <= 8 ? new Uint8Array(raw) : new Uint16Array(raw);
  } catch {
    throw new Error('is damaged: its pixels cannot be decoded');
  }
  if (values.length !== count) throw new Error('is damaged: its pixels do not fit its size');
  return values;
}

function swapBytes(values, vr) {
  if (values.BYTES_PER_ELEMENT === 1) {
    if (vr === 'OW') throw new Error('stores bytes in big-endian words: use jaxsr upscale');
    return;
  }
  for (let i = 0; i < values.length; i++) values[i] = values[i] << 8 | values[i] >> 8;
}

// Returns the compressed frame.
function fragments(set, element) {
  const {fragments} = element;
  if (!fragments?.length) throw new Error('is damaged: pixels are missing');
  if (set.warnings.some(text => text.includes('pixel data'))) {
    throw new Error('is damaged: its pixels are not divided into fragments as they must');
  }
  return dicomParser.readEncapsulatedPixelDataFromFragments(set, element, 0, fragments.length).slice();
}

function concatenated(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { out.set(part, at); at += part.length; }
  return out;
}

// Returns the test whether a stored value is padding, which becomes black.
function padding(set, stored, signed) {
  const low = set.uint16('x00280120'), mask = 2 ** stored - 1, half = 2 ** (stored - 1);
  if (low === undefined) return () => false;
  const order = value => signed ? (value & mask) ^ half : value & mask;
  const ends = [low, set.uint16('x00280121') ?? low].map(order);
  return value => order(value) >= Math.min(...ends) && order(value) <= Math.max(...ends);
}
