// Turn films upright, by the metadata that Pillow reads: EXIF first, then XMP.

const ORIENTATION = 274, BYTE = 1, SHORT = 3, LONG = 4;  // a tag, and types of its value
const EXIF = 'Exif\0\0', XMP = 'http://ns.adobe.com/xap/1.0/\0', APP1 = 0xe1;
const MOST_TEXT = 2 ** 20;  // bytes of a text after inflation

const latin = bytes => Array.from(bytes, value => String.fromCharCode(value)).join('');

// `orientation` is a value of the EXIF tag 274.
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

// Returns the orientation in EXIF data (bytes) or XMP (a string), either of which may be undefined.
function orientationOf(exif, xmp) {
  const found = exif?.length ? exifOrientation(exif) : undefined;
  return found ?? +(/tiff:Orientation(="|>)([0-9])/.exec(xmp ?? '')?.[2] ?? 1);
}

// Returns the value of tag 274 in the first directory of EXIF data; undefined without one.
function exifOrientation(bytes) {
  while (latin(bytes.subarray(0, 6)) === EXIF) bytes = bytes.subarray(6);
  const start = latin(bytes.subarray(0, 4)), little = start === 'II*\0';
  if (!little && start !== 'MM\0*') {
    if (/^(II|MM)/.test(start)) throw unknownOrientation();
    return bytes.length ? 1 : undefined;  // damaged, which pixels do not need
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let found;
  try {
    const first = view.getUint32(4, little), count = view.getUint16(first, little);
    for (let i = 0; i < count; i++) {
      const at = first + 2 + 12 * i;
      if (view.getUint16(at, little) !== ORIENTATION) continue;
      const kind = view.getUint16(at + 2, little);
      if (view.getUint32(at + 4, little) !== 1) throw unknownOrientation();
      if (kind === SHORT) found = view.getUint16(at + 8, little);
      else if (kind === LONG) found = view.getUint32(at + 8, little);
      else if (kind === BYTE) found = view.getUint8(at + 8);
      else throw unknownOrientation();
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;  // the directory is cut off
  }
  return found;
}

function unknownOrientation() {
  return new Error('has an orientation in a form that this page does not read: use jaxsr upscale');
}

// Returns the orientation of a PNG by its chunks.
async function pngOrientation(chunks) {
  const texts = {};
  for (const kind of ['tEXt', 'zTXt', 'iTXt']) for (const chunk of chunks[kind] ?? []) {
    const key = latin(chunk.subarray(0, chunk.indexOf(0)));
    if (!/^(exif|Raw profile type exif|XML:com\.adobe\.xmp)$/.test(key)) continue;
    if (key === 'exif' || texts[key]) throw unknownOrientation();
    texts[key] = latin(await textOf(kind, chunk.subarray(key.length + 1)));
  }
  const profile = texts['Raw profile type exif'];
  const hex = profile?.split('\n').slice(3).join('').replace(/\s/g, '') ?? '';
  if (/[^0-9a-fA-F]/.test(hex) || hex.length % 2) throw unknownOrientation();
  const exif = chunks.eXIf?.at(-1) ?? Uint8Array.from(hex.match(/../g) ?? [], pair => parseInt(pair, 16));
  return orientationOf(exif, texts['XML:com.adobe.xmp']);
}

// Returns the text in the rest of a chunk of one of three kinds.
async function textOf(kind, rest) {
  if (kind === 'tEXt') return rest;
  let isPacked = true, packed = rest.subarray(1);
  if (kind === 'iTXt') {
    isPacked = rest[0];
    packed = rest.subarray(2);
    for (let i = 0; i < 2; i++) packed = packed.subarray(packed.indexOf(0) + 1);
  }
  if (!isPacked) return packed;
  const text = await inflated(packed, MOST_TEXT).catch(() => { throw unknownOrientation(); });
  if (text.length >= MOST_TEXT) throw unknownOrientation();
  return text;
}

// Returns a JPEG without the metadata by which browsers turn it, and its orientation.
function withoutMetadata(bytes) {
  const kept = [bytes.subarray(0, 2)], exif = [];
  let xmp, at = 2;
  for (;;) {
    const {kind, segment, end} = jpegSegment(bytes, at, true);
    if (kind === SOS || kind === EOI) break;
    if (kind === APP1) {
      const text = latin(segment.subarray(0, XMP.length));
      if (text.startsWith(EXIF)) exif.push(segment.subarray(exif.length ? EXIF.length : 0));
      if (text === XMP) xmp = latin(segment.subarray(XMP.length));
    } else kept.push(bytes.subarray(at, end));
    at = end;
  }
  kept.push(bytes.subarray(at));
  return {plain: concatenated(kept), exif: concatenated(exif), xmp};
}
