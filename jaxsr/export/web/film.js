// Read and write films: {pixels, width, height, bits}, gray levels over the full range of
// Uint8Array or Uint16Array, 0 for black. `bits` is the number of bits of the file's values.

const PNG_START = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const IMPLICIT = '1.2.840.10008.1.2', EXPLICIT = '1.2.840.10008.1.2.1';
const JPEG_BASELINE = '1.2.840.10008.1.2.4.50';
const JPEG_LOSSLESS = ['1.2.840.10008.1.2.4.57', '1.2.840.10008.1.2.4.70'];
const JPEG_LS = ['1.2.840.10008.1.2.4.80', '1.2.840.10008.1.2.4.81'];

async function pipe(bytes, stream) {
  const response = new Response(new Blob([bytes]).stream().pipeThrough(stream));
  return new Uint8Array(await response.arrayBuffer());
}

async function readFilm(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (PNG_START.every((value, i) => bytes[i] === value)) return readPng(bytes);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    checkSize(...jpegSize(bytes));
    return readByBrowser(new Blob([bytes], {type: 'image/jpeg'}));
  }
  if (String.fromCharCode(...bytes.subarray(128, 132)) === 'DICM') return readDicom(bytes);
  throw new Error('is no PNG, JPEG or DICOM file');
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

// ---- PNG

async function readPng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 45) throw new Error('is damaged: it ends in its header');
  const width = view.getUint32(16), height = view.getUint32(20);
  const [depth, color, , , interlace] = bytes.subarray(24, 29);
  checkSize(width, height);
  if (depth === 16 && (color || interlace)) {
    throw new Error('has 16 bits with color, alpha or interlace; save it as 16-bit gray');
  }
  if (depth < 8 || color || interlace) {
    return readByBrowser(new Blob([bytes], {type: 'image/png'}));
  }
  const parts = [];
  let bits = depth;
  for (let at = 8; at + 12 <= bytes.length;) {
    const size = view.getUint32(at), kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (kind === 'IDAT') parts.push(bytes.subarray(at + 8, at + 8 + size));
    if (kind === 'sBIT') bits = Math.min(depth, bytes[at + 8] || depth);
    at += 12 + size;
  }
  let raw;
  try {
    raw = await pipe(new Blob(parts), new DecompressionStream('deflate'));
  } catch {
    throw new Error('is damaged: its pixels cannot be unpacked');
  }
  const step = depth / 8, row = width * step;
  if (raw.length < (row + 1) * height) throw new Error('is damaged: pixels are missing');
  const samples = unfilter(raw, row, height, step);
  if (depth === 8) return {pixels: samples, width, height, bits: 8};
  const pixels = new Uint16Array(width * height);
  for (let i = 0; i < pixels.length; i++) pixels[i] = samples[2 * i] << 8 | samples[2 * i + 1];
  if (bits < 16 && pixels.every(value => value < 2 ** bits)) stretch(pixels, 2 ** bits - 1, 65535);
  else bits = 16;
  return {pixels, width, height, bits};
}

function unfilter(raw, row, height, step) {
  const out = new Uint8Array(row * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (row + 1)], line = y * (row + 1) + 1, o = y * row;
    for (let x = 0; x < row; x++) {
      const left = x >= step ? out[o + x - step] : 0, up = y ? out[o + x - row] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = up;
      else if (filter === 3) guess = (left + up) >> 1;
      else if (filter === 4) {
        const corner = x >= step && y ? out[o + x - row - step] : 0, sum = left + up - corner;
        const [a, b, c] = [sum - left, sum - up, sum - corner].map(Math.abs);
        guess = a <= b && a <= c ? left : b <= c ? up : corner;
      }
      out[o + x] = raw[line + x] + guess;
    }
  }
  return out;
}

// Map 0..from to 0..to, rounded to the nearest, in place.
function stretch(pixels, from, to) {
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = Math.floor((pixels[i] * to + (from >> 1)) / from);
  }
}

const CRC = Uint32Array.from({length: 256}, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ n >>> 1 : n >>> 1;
  return n;
});

function chunk(kind, data) {
  const out = new Uint8Array(12 + data.length), view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set([...kind].map(letter => letter.charCodeAt(0)), 4);
  out.set(data, 8);
  let crc = ~0;
  for (let i = 4; i < 8 + data.length; i++) crc = CRC[(crc ^ out[i]) & 255] ^ crc >>> 8;
  view.setUint32(8 + data.length, ~crc >>> 0);
  return out;
}

// A PNG of the film's depth: 12 bits, for example, are values up to 4095 and the chunk sBIT.
async function writePng({pixels, width, height, bits}, comment) {
  const step = pixels.BYTES_PER_ELEMENT, row = width * step;
  const raw = new Uint8Array((row + 1) * height);
  const peak = 2 ** bits - 1, full = 2 ** (8 * step) - 1;
  for (let y = 0; y < height; y++) {
    const o = y * (row + 1) + 1;
    raw[o - 1] = 1;  // each byte as the difference from the pixel before it
    let before = 0;
    for (let x = 0; x < width; x++) {
      let value = pixels[y * width + x];
      if (peak < full) value = Math.floor((value * peak + (full >> 1)) / full);
      if (step === 1) raw[o + x] = value - before;
      else {
        raw[o + 2 * x] = (value >> 8) - (before >> 8);
        raw[o + 2 * x + 1] = (value & 255) - (before & 255);
      }
      before = value;
    }
  }
  const head = new Uint8Array(13), view = new DataView(head.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  head[8] = 8 * step;
  const text = new TextEncoder().encode(`Comment\0${comment}`);
  const depth = bits < 8 * step ? [chunk('sBIT', [bits])] : [];
  const body = await pipe(raw, new CompressionStream('deflate'));
  return new Blob([
    Uint8Array.from(PNG_START), chunk('IHDR', head), ...depth, chunk('tEXt', text),
    chunk('IDAT', body), chunk('IEND', []),
  ], {type: 'image/png'});
}

// ---- JPEG, and PNG of other kinds

// Returns the size in a JPEG's frame header.
function jpegSize(bytes) {
  for (let at = 2; at + 9 < bytes.length && bytes[at] === 0xff;) {
    const kind = bytes[at + 1];
    if (kind === 0xff) { at += 1; continue; }  // a fill byte
    if (kind >= 0xc0 && kind <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(kind)) {
      return [bytes[at + 7] << 8 | bytes[at + 8], bytes[at + 5] << 8 | bytes[at + 6]];
    }
    at += 2 + (bytes[at + 2] << 8 | bytes[at + 3]);
  }
  throw new Error('is damaged: it has no frame');
}

async function readByBrowser(blob) {
  let image;
  try {
    image = await createImageBitmap(blob, {colorSpaceConversion: 'none'});
  } catch {
    throw new Error('is damaged: the browser cannot decode it');
  }
  const {width, height} = image, canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.drawImage(image, 0, 0);
  image.close();
  const data = context.getImageData(0, 0, width, height).data, pixels = new Uint8Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    const r = data[4 * i], g = data[4 * i + 1], b = data[4 * i + 2];
    if (Math.max(r, g, b) - Math.min(r, g, b) > 2) {
      throw new Error('is in color; this network is for gray films');
    }
    pixels[i] = g;
  }
  return {pixels, width, height, bits: 8};
}

// ---- DICOM: the rules of jaxsr/data/dicom.py

async function readDicom(bytes) {
  let set;
  try {
    set = dicomParser.parseDicom(bytes);
  } catch (error) {
    throw new Error('is damaged: its DICOM elements cannot be read');
  }
  const number = tag => set.uint16(tag), text = tag => (set.string(tag) || '').trim();
  const width = number('x00280011'), height = number('x00280010');
  checkSize(width, height);
  const stored = number('x00280101'), allocated = number('x00280100');
  const kind = text('x00280004'), element = set.elements.x7fe00010;
  if ((number('x00280002') ?? 1) !== 1 || !/^MONOCHROME[12]$/.test(kind)) {
    throw new Error('is DICOM in color; this network is for gray films');
  }
  if (+(text('x00280008') || 1) > 1) throw new Error('is DICOM of several frames; split it first');
  if (set.elements.x00283000) throw new Error('has a modality look-up table: use jaxsr upscale');
  if (!element) throw new Error('is DICOM without pixels');
  if (!(stored >= 1 && stored <= 16) || (number('x00280102') ?? stored - 1) !== stored - 1 ||
      ![8, 16].includes(allocated)) {
    throw new Error(`stores ${stored} of ${allocated} bits: use jaxsr upscale`);
  }
  const values = await dicomValues(bytes, set, element, allocated, width * height);
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

// Returns the stored values without a sign.
async function dicomValues(bytes, set, element, allocated, count) {
  const syntax = (set.string('x00020010') || '').trim();
  const Kind = allocated === 8 ? Uint8Array : Uint16Array;
  let values;
  if (syntax === IMPLICIT || syntax === EXPLICIT) {
    const start = bytes.byteOffset + element.dataOffset;
    values = bytes.buffer.slice(start, start + count * allocated / 8);
    if (values.byteLength < count * allocated / 8) throw new Error('is damaged: pixels are missing');
    return new Kind(values);
  }
  if (syntax !== JPEG_BASELINE && ![...JPEG_LOSSLESS, ...JPEG_LS].includes(syntax)) {
    throw new Error(`is DICOM compressed as ${syntax}: use jaxsr upscale`);
  }
  if (syntax === JPEG_BASELINE) {
    const frame = fragments(set, element);
    checkSize(...jpegSize(frame));
    values = (await readByBrowser(new Blob([frame], {type: 'image/jpeg'}))).pixels;
  } else {
    try {
      const raw = await decodeLossless(fragments(set, element), JPEG_LS.includes(syntax));
      values = new Kind(raw);
    } catch {
      throw new Error('is damaged: its pixels cannot be decoded');
    }
  }
  if (values.length !== count) throw new Error('is damaged: its pixels do not fit its size');
  return values;
}

// Returns the compressed frame.
function fragments(set, element) {
  const {fragments} = element;
  if (!fragments?.length) throw new Error('is damaged: pixels are missing');
  return dicomParser.readEncapsulatedPixelDataFromFragments(set, element, 0, fragments.length).slice();
}

let charls;  // started by the first film that needs it

// Returns the bytes of the pixels of a JPEG Lossless or JPEG-LS frame.
async function decodeLossless(frame, isJpegLs) {
  if (!isJpegLs) {
    const raw = new jpegLossless.Decoder().decompress(frame.buffer, 0, frame.length);
    return raw.buffer ?? raw;
  }
  charls ??= unpack('charls').then(wasmBinary => CharLSWASM({wasmBinary}));
  const decoder = new (await charls).JpegLSDecoder();
  try {
    decoder.getEncodedBuffer(frame.length).set(frame);
    decoder.decode();
    return decoder.getDecodedBuffer().slice().buffer;
  } finally {
    decoder.delete();
  }
}

// Returns the test whether a stored value is padding, which becomes black.
function padding(set, stored, signed) {
  const low = set.uint16('x00280120'), mask = 2 ** stored - 1, half = 2 ** (stored - 1);
  if (low === undefined) return () => false;
  const order = value => signed ? (value & mask) ^ half : value & mask;
  const ends = [low, set.uint16('x00280121') ?? low].map(order);
  return value => order(value) >= Math.min(...ends) && order(value) <= Math.max(...ends);
}
