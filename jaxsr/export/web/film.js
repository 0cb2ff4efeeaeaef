// Read and write films: {pixels, width, height, bits}, gray levels over the full range of
// Uint8Array or Uint16Array, 0 for black. `bits` is the number of bits of the file's values.

async function pipe(bytes, stream) {
  const response = new Response(new Blob([bytes]).stream().pipeThrough(stream));
  return new Uint8Array(await response.arrayBuffer());
}

const PACKED_AT_ONCE = 2 ** 14;  // bytes, which inflate to 16 MiB at most
const BEYOND = 2 ** 20;  // bytes after the needed ones within which the end is looked for

// Inflate a zlib stream to at most `most` bytes; what follows them is dropped.
async function inflated(packed, most) {
  let at = 0, size = 0;
  const source = new ReadableStream({pull: controller => {
    if (at >= packed.length) return controller.close();
    controller.enqueue(packed.slice(at, at += PACKED_AT_ONCE));
  }}, {highWaterMark: 0});
  const reader = source.pipeThrough(new DecompressionStream('deflate')).getReader();
  const parts = [];
  for (;;) {
    const {done, value} = await reader.read();
    if (value && size < most) parts.push(value.subarray(0, most - size));
    size += value?.length ?? 0;
    if (!done && size < most + BEYOND) continue;
    if (!done) reader.cancel().catch(() => {});
    return concatenated(parts);
  }
}

async function readFilm(file) {
  const content = await file.arrayBuffer().catch(() => {
    throw new Error('cannot be read; a folder must be opened, and a film in it chosen');
  });
  const bytes = new Uint8Array(content);
  if (!bytes.length) throw new Error('is empty');
  if (PNG_START.every((value, i) => bytes[i] === value)) return readPng(bytes);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    const {exif, xmp} = withoutMetadata(bytes);
    return turned(await readJpeg(bytes), orientationOf(exif, xmp));
  }
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

// Refuse an image before its pixels are decoded.
function checkSize(width, height) {
  if (!width || !height) throw new Error('is damaged: it has no pixels');
  if (Math.min(width, height) < META.smallest) {
    throw new Error(`has ${width}×${height} pixels; each side needs ${META.smallest} or more`);
  }
  const most = Math.floor(META.most / META.scale ** 2), tell = count => count.toLocaleString('en-US');
  if (width * height > most) {
    throw new Error(`has ${width}×${height} = ${tell(width * height)} pixels; this page takes ` +
      `${tell(most)} at most: use jaxsr upscale`);
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

function concatenated(parts) {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { out.set(part, at); at += part.length; }
  return out;
}
