// Check the scans of a JPEG, which have no checksum: decoders invent what is missing. The codes are
// read, not the pixels: all blocks must be there, and the data must end with the last one.

const DHT = 0xc4, RST0 = 0xd0, RST7 = 0xd7, EOI = 0xd9, SOS = 0xda, DQT = 0xdb, DRI = 0xdd, TEM = 1;
const NO_FRAMES = [DHT, 0xc8, 0xcc];  // other markers among those of frames
const PROGRESSIVE = 0xc2, LOSSLESS = 0xc3, JPEG_LS_FRAME = 0xf7;
const LARGEST = {dc: 11, ac: 10, lossless: 16};  // sizes of values of 8 bits, and of 16
const MOST_DC = 8 * (128 + 8);  // the mean of a block, beyond black or white by 8 gray levels
const MOST_SCANS = 100;  // encoders write about ten
const FEW = 4;  // bytes that the encoders of some cameras leave between the last scan and the end
const UNSEEN = -1;

const lost = () => new Error('is damaged: a part of its pixels is missing or overwritten');
const word = (bytes, at) => bytes[at] << 8 | bytes[at + 1];

const isAlone = kind => kind === EOI || kind === TEM || kind >= RST0 && kind <= RST7;

// Returns the marker at a place, and its segment. In the header, other bytes may precede it.
function jpegSegment(bytes, at, isHeader = false) {
  if (isHeader) while (at < bytes.length && (bytes[at] !== 0xff || !bytes[at + 1])) at++;
  if (bytes[at] !== 0xff) throw lost();
  while (bytes[at] === 0xff) at++;  // fill bytes
  const kind = bytes[at];
  if (isAlone(kind)) return {kind, end: at + 1};
  const end = at + 1 + word(bytes, at + 1);
  if (end < at + 3 || end > bytes.length) throw lost();
  return {kind, segment: bytes.subarray(at + 3, end), end};
}

// Returns the frame header of a JPEG or JPEG-LS.
function jpegFrame(bytes) {
  for (let at = 2; ;) {
    const {kind, segment, end} = jpegSegment(bytes, at, true);
    if (isFrame(kind)) return readFrame(kind, segment);
    if (kind === SOS || kind === EOI) throw new Error('is damaged: it has no frame');
    at = end;
  }
}

function isFrame(kind) {
  return kind === JPEG_LS_FRAME || kind >= 0xc0 && kind <= 0xcf && !NO_FRAMES.includes(kind);
}

function readFrame(kind, segment) {
  const frame = {kind, bits: segment[0], height: word(segment, 1), width: word(segment, 3)};
  const {width, height} = frame, side = kind === LOSSLESS ? 1 : 8;
  const count = segment[5], components = Array.from({length: count}, (_, i) => {
    const [id, factors, quantizer] = segment.subarray(6 + 3 * i);
    const lowest = new Int8Array(64).fill(UNSEEN);  // bit of each coefficient that was read
    return {id, across: factors >> 4, down: factors & 15, quantizer, lowest};
  });
  const sides = components.flatMap(({across, down}) => [across, down]);
  if (!count || sides.some(factor => !(factor >= 1 && factor <= 4))) throw lost();
  const across = Math.max(...components.map(each => each.across));
  const down = Math.max(...components.map(each => each.down));
  const blocks = (size, factor, most) => Math.ceil(Math.ceil(size * factor / most) / side);
  for (const each of components) {
    each.blocks = blocks(width, each.across, across) * blocks(height, each.down, down);
  }
  const groups = Math.ceil(width / side / across) * Math.ceil(height / side / down);
  return {...frame, components, groups};
}

// Check all scans. Returns how many bytes the last one leaves unread, `FEW` at most and none if it is
// lossless, and where the image ends.
function checkScans(bytes) {
  const tables = {steps: {}}, bits = new Bits(bytes);
  let frame, interval = 0, scans = 0, left = 0, at = 2;
  if (word(bytes, 0) !== 0xffd8) throw lost();
  for (;;) {
    const {kind, segment, end} = jpegSegment(bytes, at, !scans);
    at = end;
    if (kind === EOI) break;
    if (kind === DHT) readTables(segment, tables);
    if (kind === DQT) readSteps(segment, tables.steps);
    if (kind === DRI) interval = word(segment, 0);
    if (isFrame(kind)) {
      if (frame) throw lost();
      frame = readFrame(kind, segment);
    }
    if (kind === SOS) {
      if (!frame) throw lost();
      if (++scans > MOST_SCANS) throw new Error('has more scans than any encoder writes');
      ({at, left} = walk(bits, at, readScan(segment, frame, tables), interval));
    }
  }
  if (frame?.components.every(each => !each.lowest.some(bit => bit))) return {left, end: at};
  throw new Error('is damaged: some of its scans are missing');
}

// Add Huffman tables: the size and the value of the code that begins the next 16 bits.
function readTables(segment, tables) {
  for (let at = 0; at < segment.length;) {
    const id = segment[at], counts = segment.subarray(at + 1, at + 17);
    const table = tables[id] = new Uint16Array(2 ** 16);
    let from = 0;
    at += 17;
    counts.forEach((count, i) => {
      for (; count; count--) {
        const to = from + 2 ** (15 - i);
        if (to >= table.length || at >= segment.length) throw lost();  // no code is all ones
        table.fill(i + 1 << 8 | segment[at++], from, to);
        from = to;
      }
    });
  }
}

// Add the step of the mean of each quantization table.
function readSteps(segment, steps) {
  for (let at = 0; at < segment.length;) {
    const isWide = segment[at] > 15;
    steps[segment[at] & 15] = isWide ? word(segment, at + 1) : segment[at + 1];
    at += isWide ? 129 : 65;
  }
}

// Returns how the codes of a scan are read, the components in it, and in which order those come.
function readScan(segment, frame, tables) {
  const count = segment[0], isProgressive = frame.kind === PROGRESSIVE;
  let [first, last, high, low] = [0, 63, 0, 0];
  if (isProgressive) {
    [first, last] = segment.subarray(1 + 2 * count);
    [high, low] = [segment[3 + 2 * count] >> 4, segment[3 + 2 * count] & 15];
    if (first ? count > 1 || last < first : last) throw lost();
    if (!(last < 64) || high && low !== high - 1) throw lost();
  }
  if (frame.kind === LOSSLESS) {
    const [predictor, , transform] = segment.subarray(1 + 2 * count);
    if (!(predictor >= 1 && predictor <= 7)) throw lost();
    if (transform & 15) throw new Error('is JPEG Lossless with a point transform: use jaxsr upscale');
  }
  const read = frame.kind === LOSSLESS ? readSample : !isProgressive ? readBlock :
    first ? high ? refineAc : readAc : high ? refineDc : readDc;
  const parts = Array.from({length: count}, (_, i) => {
    const [id, use] = segment.subarray(1 + 2 * i);
    const component = frame.components.find(each => each.id === id);
    if (!component) throw lost();
    for (let k = first; k <= last; k++) {
      if (component.lowest[k] !== (high || UNSEEN)) throw lost();
      component.lowest[k] = low;
    }
    if (isProgressive) component.known ??= new Uint8Array(64 * component.blocks);
    const [dc, ac] = [tables[use >> 4], tables[16 | use & 15]];
    const isWhole = (dc || high || first) && (ac || read === readSample || !last);
    if (!isWhole) throw new Error('is JPEG without its Huffman tables: use jaxsr upscale');
    const step = tables.steps[component.quantizer] << low;
    return {...component, dc, ac, first: Math.max(1, first), last, step, mean: 0, run: 0};
  });
  if (!count) throw lost();
  const few = read === readSample ? 0 : FEW, order = count === 1 ? [0] :
    parts.flatMap(({across, down}, i) => Array(across * down).fill(i));
  return {read, parts, order, few, groups: count === 1 ? parts[0].blocks : frame.groups};
}

// Read the codes of a scan; returns the place of the marker that ends it.
function walk(bits, at, {read, parts, order, few, groups}, interval) {
  let left = 0;
  for (let start = 0; start < groups; start += interval) {
    interval ||= groups;
    if (start) {
      const {kind, end} = jpegSegment(bits.bytes, at);
      if (kind !== RST0 + (start / interval - 1 & 7)) throw lost();
      at = end;
    }
    at = bits.open(at);
    for (const part of parts) part.mean = 0;
    for (let i = start, end = Math.min(groups, start + interval); i < end; i++) {
      for (let j = 0; j < order.length; j++) read(bits, parts[order[j]], i);
      if (bits.at > bits.end) throw lost();
    }
    const rest = bits.rest(), isLast = bits.bytes[at + 1] === EOI;
    left = rest.some(value => value) ? rest.length : 0;  // zeros are padding
    if (left > few || rest.length && !isLast || parts.some(part => part.run)) throw lost();
  }
  return {at, left};
}

class Bits {
  constructor(bytes) {
    this.bytes = bytes;
    this.data = new Uint8Array(bytes.length);
  }

  // Take the data up to the next marker, without the zeros after 0xff; returns its place.
  open(at) {
    const {bytes, data} = this;
    let size = 0;
    for (; ; at++) {
      if (at >= bytes.length) throw lost();
      if (bytes[at] === 0xff) {
        while (bytes[at + 1] === 0xff) at++;
        if (bytes[++at]) break;
        data[size++] = 0xff;
      } else data[size++] = bytes[at];
    }
    [this.at, this.end] = [0, 8 * size];
    return at - 1;
  }

  // Returns the next 16 bits; beyond the end, any.
  peek() {
    const {data, at} = this, i = at >> 3;
    return (data[i] << 16 | data[i + 1] << 8 | data[i + 2]) >> 8 - (at & 7) & 0xffff;
  }

  code(table) {
    const found = table[this.peek()];
    if (!found) throw lost();
    this.at += found >> 8;
    return found & 255;
  }

  read(count) {
    const value = this.peek() >> 16 - count;
    this.at += count;
    return value;
  }

  // Returns the bytes that are unread.
  rest() {
    return this.data.subarray(this.at + 7 >> 3, this.end >> 3);
  }
}

function readSample(bits, {dc}) {
  const size = bits.code(dc);
  if (size > LARGEST.lossless) throw lost();
  bits.at += size % LARGEST.lossless;
}

function readBlock(bits, part, i) {
  readDc(bits, part);
  readAc(bits, part, i);
  if (part.run) throw lost();
}

// Read the difference between the mean of a block and that of the one before it.
function readDc(bits, part) {
  const size = bits.code(part.dc);
  if (size > LARGEST.dc) throw lost();
  const value = bits.read(size);
  part.mean += 2 * value < 1 << size ? value + 1 - (1 << size) : value;
  if ((Math.abs(part.mean) - 1) * part.step > MOST_DC) throw lost();
}

function refineDc(bits) {
  bits.at++;
}

// Read the coefficients of a block, or none in a run of blocks without any.
function readAc(bits, part, i) {
  const {ac, known, last} = part;
  if (part.run) { part.run--; return; }
  for (let k = part.first; k <= last; k++) {
    const code = bits.code(ac), zeros = code >> 4, size = code & 15;
    if (!size && zeros < 15) {
      part.run = 2 ** zeros - 1 + bits.read(zeros);
      return;
    }
    k += zeros;
    if (k > last || size > LARGEST.ac) throw lost();
    bits.at += size;
    if (known && size) known[64 * i + k] = 1;
  }
}

// Read a further bit of the coefficients that are known, and those that it adds.
function refineAc(bits, part, i) {
  const {ac, known, last} = part, from = 64 * i;
  let k = part.first;
  for (; k <= last && !part.run; k++) {
    const code = bits.code(ac), size = code & 15;
    let zeros = code >> 4;
    if (!size && zeros < 15) {
      part.run = 2 ** zeros + bits.read(zeros);
      break;
    }
    if (size > 1) throw lost();
    bits.at += size;  // the sign
    for (; k <= last && (known[from + k] || zeros--); k++) bits.at += known[from + k];
    if (k > last) throw lost();
    known[from + k] = size;
  }
  if (!part.run) return;
  for (; k <= last; k++) bits.at += known[from + k];
  part.run--;
}
