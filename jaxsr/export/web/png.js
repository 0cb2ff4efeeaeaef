// Read and write PNG. The browser's decoder has 8 bits, and changes values that are transparent.

const PNG_START = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4};  // of the color types
const DEPTHS = {0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16]};
const CRITICAL = ['IHDR', 'PLTE', 'IDAT', 'IEND'];
const FRAMES = 4;  // bytes of the chunk of animations that count them
const PALETTE = 3;
// [top, left, rows, columns] of the passes of interlaced files: where each begins, and its steps
const PASSES = [
  [0, 0, 8, 8], [0, 4, 8, 8], [4, 0, 8, 4], [0, 2, 4, 4], [2, 0, 4, 2], [0, 1, 2, 2], [1, 0, 2, 1],
];

const CRC = Uint32Array.from({length: 256}, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ n >>> 1 : n >>> 1;
  return n;
});

function checksum(bytes) {
  let crc = ~0;
  for (let i = 0; i < bytes.length; i++) crc = CRC[(crc ^ bytes[i]) & 255] ^ crc >>> 8;
  return ~crc >>> 0;
}

async function readPng(bytes) {
  const chunks = readChunks(bytes), head = chunks.IHDR?.[0];
  if (head?.length !== 13) throw new Error('is damaged: it has no header');
  const view = new DataView(head.buffer, head.byteOffset);
  const width = view.getUint32(0), height = view.getUint32(4);
  const [depth, color, packing, filtering, interlace] = head.subarray(8), channels = CHANNELS[color];
  checkSize(width, height);
  if (!DEPTHS[color]?.includes(depth) || packing || filtering || interlace > 1) {
    throw new Error('is damaged: its header has values that PNG does not know');
  }
  if (chunks.IHDR.length > 1 || chunks.PLTE?.length > 1) {
    throw new Error('is damaged: it has two headers or two palettes');
  }
  const frames = chunks.acTL?.[0].subarray(0, FRAMES);
  if (frames?.some((value, i) => value > (i === FRAMES - 1))) {
    throw new Error('is an animation; split it first');
  }
  const orientation = await pngOrientation(chunks);
  const bits = depth * channels, passes = passesOf(width, height, interlace);
  const packed = concatenated(chunks.IDAT ?? []);
  const needed = passes.reduce(
    (sum, {rows, columns}) => sum + rows * (1 + Math.ceil(columns * bits / 8)), 0);
  let raw;
  try {
    raw = await inflated(packed, needed).catch(
      async () => inflated(packed.subarray(0, await streamLength(packed)), needed));
  } catch {
    throw new Error('is damaged: its pixels cannot be unpacked');
  }
  if (raw.length < needed) throw new Error('is damaged: pixels are missing');
  const samples = new Uint16Array(width * height * channels);
  let at = 0;
  for (const {top, left, down, across, rows, columns} of passes) {
    const row = Math.ceil(columns * bits / 8), end = at + (row + 1) * rows;
    const found = unfilter(raw.subarray(at, end), row, rows, Math.max(1, bits / 8));
    at = end;
    for (let y = 0; y < rows; y++) {
      const to = (top + y * down) * width + left;
      for (let i = 0; i < columns * channels; i++) {
        const pixel = to + Math.floor(i / channels) * across;
        samples[pixel * channels + i % channels] = sample(found, y * row, i, depth);
      }
    }
  }
  const palette = color === PALETTE ? chunks.PLTE?.[0] : undefined;
  if (color === PALETTE && !palette) throw new Error('is damaged: it has no palette');
  if (palette?.length > 3 * 256) throw new Error('is damaged: its palette has more than 256 colors');
  const grays = palette ? fromPalette(samples, palette) : toGray(samples, channels);
  const kept = Math.max(...chunks.sBIT?.at(-1).subarray(0, color & 2 ? 3 : 1) ?? [0]);
  const film = toRange(grays, width, height, palette ? 8 : depth, kept);
  return turned(film, orientation);
}

// Returns the passes in which pixels come, without those that have none.
function passesOf(width, height, interlace) {
  return (interlace ? PASSES : [[0, 0, 1, 1]]).map(([top, left, down, across]) => {
    const rows = Math.ceil((height - top) / down), columns = Math.ceil((width - left) / across);
    return {top, left, down, across, rows, columns};
  }).filter(({rows, columns}) => rows > 0 && columns > 0);
}

// Returns how many bytes belong to a zlib stream that others may follow, which browsers refuse.
async function streamLength(bytes) {
  let [low, high] = [0, bytes.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (await inflates(bytes.subarray(0, middle))) low = middle; else high = middle - 1;
  }
  return low;
}

// Whether bytes are the beginning of a zlib stream, or all of it.
async function inflates(bytes) {
  const {readable, writable} = new DecompressionStream('deflate');
  const reader = readable.getReader(), writer = writable.getWriter();
  const drain = async () => { while (!(await reader.read()).done); };
  drain().catch(() => {});
  try {
    await writer.write(bytes);
    return true;
  } catch {
    return false;
  } finally {
    writer.abort().catch(() => {});
  }
}

// Returns the contents of the chunks by kind.
function readChunks(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), found = {};
  for (let at = 8; at + 12 <= bytes.length && !found.IEND;) {
    const size = view.getUint32(at), end = at + 8 + size;
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (end + 4 > bytes.length) break;
    if (checksum(bytes.subarray(at + 4, end)) !== view.getUint32(end)) {
      throw new Error('is damaged: a checksum differs');
    }
    if (/^[A-Z]/.test(kind) && !CRITICAL.includes(kind)) {
      throw new Error(`has the critical chunk ${kind}, which is not part of the PNG standard`);
    }
    (found[kind] ??= []).push(bytes.subarray(at + 8, end));
    at = end + 4;
  }
  if (!found.IEND) throw new Error('is damaged: its end is missing');
  return found;
}

function sample(bytes, row, i, depth) {
  if (depth === 16) return bytes[row + 2 * i] << 8 | bytes[row + 2 * i + 1];
  if (depth === 8) return bytes[row + i];
  const bit = i * depth;
  return bytes[row + (bit >> 3)] >> 8 - depth - (bit & 7) & 2 ** depth - 1;
}

// Returns the gray levels of pixels with several channels; transparency is ignored.
function toGray(samples, channels) {
  if (channels === 1) return samples;
  const grays = new Uint16Array(samples.length / channels);
  for (let i = 0; i < grays.length; i++) {
    const o = i * channels;
    if (channels > 2) checkGray(samples[o], samples[o + 1], samples[o + 2]);
    grays[i] = samples[o];
  }
  return grays;
}

function fromPalette(samples, palette) {
  return samples.map(index => {
    const [r, g, b] = palette.subarray(3 * index, 3 * index + 3);
    if (b === undefined) throw new Error('is damaged: its palette is too short');
    checkGray(r, g, b);
    return r;
  });
}

// Spread values over 8 or 16 bits. `kept` is the number of bits that the file declares, if any.
function toRange(values, width, height, depth, kept) {
  const found = {width, height, bits: Math.max(8, depth)};
  if (depth <= 8) {
    if (depth < 8) stretch(values, 2 ** depth - 1, 255);
    return {...found, pixels: Uint8Array.from(values)};
  }
  if (kept && kept < 16 && values.every(value => value < 2 ** kept)) {
    stretch(values, 2 ** kept - 1, 65535);
    found.bits = kept;
  }
  return {...found, pixels: values};
}

function unfilter(raw, row, height, step) {
  const out = new Uint8Array(row * height);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (row + 1)], line = y * (row + 1) + 1, o = y * row;
    if (filter > 4) throw new Error('is damaged: a row has an unknown filter');
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

function chunk(kind, data) {
  const out = new Uint8Array(12 + data.length), view = new DataView(out.buffer);
  view.setUint32(0, data.length);
  out.set([...kind].map(letter => letter.charCodeAt(0)), 4);
  out.set(data, 8);
  view.setUint32(8 + data.length, checksum(out.subarray(4, 8 + data.length)));
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
