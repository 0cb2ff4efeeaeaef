// Read DICOM, by the rules of jaxsr/data/dicom.py.

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
const SINGLE_WORDS = {
  ...REQUIRED, HighBit: 'x00280102', PixelPaddingValue: 'x00280120',
  PixelPaddingRangeLimit: 'x00280121',
};
const SINGLE_TEXTS = {
  PhotometricInterpretation: 'x00280004', NumberOfFrames: 'x00280008', RescaleIntercept: 'x00281052',
  RescaleSlope: 'x00281053', PresentationLUTShape: 'x20500020',
};
const NUMBERS = ['NumberOfFrames', 'RescaleIntercept', 'RescaleSlope'];
const DECIMAL = /^([+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?)?$/i;  // or nothing
const PIXELS = 'x7fe00010', TABLE = 'x00283000', SLOPE = 'x00281053', VALUES = 'x00289145';
const GROUPS = ['x52009229', 'x52009230'];  // shared by frames, and of each frame

async function readDicom(bytes) {
  const set = parsed(bytes), element = set.elements[PIXELS];
  const number = tag => set.uint16(tag), text = tag => (set.string(tag) || '').trim();
  const kind = text('x00280004');
  const missing = Object.keys(REQUIRED).filter(
    name => name === 'PhotometricInterpretation' ? !kind : number(REQUIRED[name]) === undefined);
  if (missing.length) {
    throw new Error(`is DICOM that lacks ${missing.join(', ')}, without which pixels mean nothing`);
  }
  checkSingle(set);
  const width = number('x00280011'), height = number('x00280010');
  checkSize(width, height);
  const stored = number('x00280101'), allocated = number('x00280100');
  if (number('x00280002') !== 1 || !/^MONOCHROME[12]$/.test(kind)) {
    throw new Error('is DICOM in color; this network is for gray films');
  }
  const frames = +(text('x00280008') || 1);
  if (frames !== 1) throw new Error(`is DICOM of ${frames} frames; split it first`);
  if (items(set, TABLE).length) throw new Error('has a modality look-up table: use jaxsr upscale');
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
  const isInverted = isSlopeNegative(set) !== (kind === 'MONOCHROME1');
  const signed = number('x00280103') === 1;
  const values = await dicomValues(bytes, set, element, {allocated, width, height, stored});
  const bits = 8 * values.BYTES_PER_ELEMENT, top = 2 ** stored - 1, half = 2 ** (stored - 1);
  const isPadding = padding(set, stored, bits, signed);
  const pixels = stored <= 8 ? new Uint8Array(values.length) : new Uint16Array(values.length);
  const peak = stored <= 8 ? 255 : 65535, extension = 2 ** (bits - stored) - 1;
  let isAbove = false, isExtended = signed;  // of all values
  for (let i = 0; i < pixels.length; i++) {
    if (isPadding(values[i])) continue;
    let value = values[i] & top;
    const above = values[i] >> stored;
    isAbove ||= above > 0;
    isExtended &&= above === (value >= half ? extension : 0);
    if (signed) value = value >= half ? value - half : value + half;
    if (isInverted) value = top - value;
    pixels[i] = Math.floor((value * peak + (top >> 1)) / top);
  }
  if (isAbove && !isExtended) {
    throw new Error(`has values of more than ${stored} bits: use jaxsr upscale`);
  }
  return {pixels, width, height, bits: stored <= 8 ? 8 : 16};
}

// Returns the elements up to the pixels: bytes behind them may be none.
function parsed(bytes) {
  let set, whole;
  try {
    set = dicomParser.parseDicom(bytes, {untilTag: PIXELS});
  } catch {
    if (dicomSyntax(bytes) === DEFLATED) throw unknownSyntax(DEFLATED);
    throw new Error('is damaged: its DICOM elements cannot be read');
  }
  if (!set.elements[PIXELS]?.hadUndefinedLength) return set;
  try {
    whole = dicomParser.parseDicom(bytes);
  } catch ({dataSet}) {
    whole = dataSet;
  }
  if (!whole?.elements[PIXELS]) throw new Error('is damaged: it ends in its compressed pixels');
  set.elements[PIXELS] = whole.elements[PIXELS];
  set.warnings = whole.warnings;
  return set;
}

// Refuse several values, or no number, where there must be one.
function checkSingle(set) {
  for (const [name, tag] of Object.entries(SINGLE_WORDS)) {
    const length = set.elements[tag]?.length;
    if (name !== 'PhotometricInterpretation' && length > 2) {
      throw new Error(`has several values in ${name}, which has one`);
    }
  }
  for (const [name, tag] of Object.entries(SINGLE_TEXTS)) {
    const text = (set.string(tag) || '').trim();
    if (text.includes('\\')) throw new Error(`has several values in ${name}, which has one`);
    if (NUMBERS.includes(name) && !DECIMAL.test(text)) throw new Error(`has no number in ${name}`);
  }
}

// Returns the data sets in a sequence.
function items(set, tag) {
  const element = set.elements[tag];
  if (element?.length && !element.items) {
    throw new Error('has a sequence that cannot be read: use jaxsr upscale');
  }
  return (element?.items ?? []).map(item => item.dataSet);
}

// Whether large stored values mean small ones. Enhanced objects say it for the first frame.
function isSlopeNegative(set) {
  let found = set.string(SLOPE);
  for (const tag of GROUPS) for (const group of items(set, tag).slice(0, 1)) {
    for (const item of items(group, VALUES)) {
      if (item.elements[SLOPE]) found = item.string(SLOPE);
    }
  }
  const text = (found || '').trim();
  if (!DECIMAL.test(text)) throw new Error('has no number in RescaleSlope');
  return +text < 0;
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
async function dicomValues(bytes, set, element, {allocated, width, height, stored}) {
  const count = width * height;
  const syntax = (set.string('x00020010') || '').trim();
  const Kind = allocated === 8 ? Uint8Array : Uint16Array;
  if ([IMPLICIT, EXPLICIT, BIG_ENDIAN].includes(syntax)) {
    const start = element.dataOffset, size = count * allocated / 8;
    if (Math.min(element.length, bytes.length - start) < size) {
      throw new Error('is damaged: pixels are missing');
    }
    const values = new Kind(bytes.slice(start, start + size).buffer);
    if (syntax === BIG_ENDIAN) swapBytes(values, element.vr);
    return values;
  }
  if (syntax !== JPEG_BASELINE && ![...JPEG_LOSSLESS, ...JPEG_LS].includes(syntax)) {
    throw unknownSyntax(syntax);
  }
  const data = fragments(set, element), frame = jpegFrame(data);
  const [name, kinds] = syntax === JPEG_BASELINE ? ['JPEG baseline', BY_BROWSERS] :
    JPEG_LS.includes(syntax) ? ['JPEG-LS', [JPEG_LS_FRAME]] : ['JPEG Lossless', [LOSSLESS]];
  if (!kinds.includes(frame.kind)) {
    throw new Error(`says that it is ${name}, but its pixels are compressed in another way: use ` +
      'jaxsr upscale');
  }
  if (frame.components.length !== 1) {
    throw new Error('says that it is gray, but its compressed frame is in color; correct one');
  }
  if (frame.width !== width || frame.height !== height || frame.bits > allocated) {
    throw new Error(`is damaged: it has ${width}×${height} pixels of ${allocated} bits, its ` +
      `compressed frame ${frame.width}×${frame.height} of ${frame.bits}`);
  }
  if (frame.bits < stored) {
    throw new Error(`stores ${stored} bits, its compressed frame ${frame.bits}: use jaxsr upscale`);
  }
  if (syntax === JPEG_BASELINE) {
    const film = await readJpeg(data);
    if (film.remark) throw lost();
    return film.pixels;
  }
  const raw = await decodeLossless(data, JPEG_LS.includes(syntax));
  const size = count * (frame.bits <= 8 ? 1 : 2);
  if (raw.byteLength !== size) throw new Error('is damaged: its pixels do not fit its size');
  return frame.bits <= 8 ? new Uint8Array(raw) : new Uint16Array(raw);
}

function swapBytes(values, vr) {
  if (values.BYTES_PER_ELEMENT === 1) {
    if (vr === 'OW') throw new Error('stores bytes in big-endian words: use jaxsr upscale');
    return;
  }
  for (let i = 0; i < values.length; i++) values[i] = values[i] << 8 | values[i] >> 8;
}

// Returns the compressed frame; there must be one.
function fragments(set, element) {
  const {fragments} = element;
  if (!fragments?.length) throw new Error('is damaged: pixels are missing');
  if (set.warnings.some(text => text.includes('pixel data'))) {
    throw new Error('is damaged: its pixels are not divided into fragments as they must');
  }
  const starts = fragments.filter(({position, length}) => {
    const [first, second, third] = set.byteArray.subarray(position, position + Math.min(3, length));
    return first === 0xff && second === 0xd8 && third === 0xff;
  });
  if (starts.length > 1 || element.basicOffsetTable?.length > 1) {
    throw new Error('is DICOM of several frames; split it first');
  }
  return dicomParser.readEncapsulatedPixelDataFromFragments(set, element, 0, fragments.length).slice();
}

// Returns the test whether a stored value is padding, which becomes black: as a whole word, or
// without the bits that are not stored.
function padding(set, stored, bits, signed) {
  const read = tag => {
    const kind = set.elements[tag]?.vr ?? (signed ? 'SS' : 'US');
    return kind === 'SS' ? set.int16(tag) : set.uint16(tag);
  };
  const value = read('x00280120');
  if (value === undefined) return () => false;
  const ends = [value, read('x00280121') ?? value], mask = 2 ** stored - 1;
  const isWhole = isBetween(ends, bits, signed), isPart = isBetween(ends, stored, signed);
  return word => isWhole(word) || isPart(word & mask);
}

// Returns the test whether a value of some bits lies between two ends, written with a sign or not.
function isBetween(ends, bits, signed) {
  const half = 2 ** (bits - 1), count = 2 ** bits, top = signed ? half - 1 : count - 1;
  ends = ends.map(end => end > top ? end - count : end);
  ends = ends.map(end => signed || end >= 0 ? end : end + count);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  return word => {
    const value = signed && word >= half ? word - count : word;
    return value >= low && value <= high;
  };
}
