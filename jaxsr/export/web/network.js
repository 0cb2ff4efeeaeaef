// Enlarge films: by the network, in tiles, and by bicubic interpolation to compare with.

let worker, started;

async function unpack(id) {
  const packed = Uint8Array.from(atob($(id).textContent), letter => letter.charCodeAt(0));
  return pipe(packed, new DecompressionStream('gzip'));
}

// Start the worker once; returns the number of its threads.
function startNetwork() {
  return started ??= (async () => {
    const threads = self.crossOriginIsolated ? Math.min(8, navigator.hardwareConcurrency || 1) : 1;
    const [model, wasm] = await Promise.all([unpack('model'), unpack('wasm')]);
    const code = new Blob([$('worker').textContent], {type: 'text/javascript'});
    worker = new Worker(URL.createObjectURL(code));
    await ask({runtime: $('runtime').textContent, wasm, model, threads});
    return threads;
  })().catch(error => { stopNetwork(); throw error; });
}

function stopNetwork() {
  worker?.terminate();
  worker = started = undefined;
}

function ask(message) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({data}) => data.error ? reject(new Error(data.error)) : resolve(data);
    worker.onerror = event => reject(new Error(event.message || 'the worker did not start'));
    worker.postMessage(message);
  });
}

// Cover a length with tiles of one size that read `margin` pixels around those they contribute.
function spans(length, side, margin) {
  side = Math.max(side, 2 * margin);
  side = Math.ceil(length / Math.ceil(length / side));
  const size = side + 2 * margin;
  if (size >= length) return [length, [{start: 0, first: 0, last: length}]];
  const found = [];
  for (let first = 0; first < length; first += side) {
    const start = Math.min(Math.max(0, first - margin), length - size);
    found.push({start, first, last: Math.min(first + side, length)});
  }
  return [size, found];
}

// `progress` is called with the share that is done; returns undefined once `canceled()`.
async function enlarge(film, progress, canceled) {
  const {pixels, width, height, bits} = film, {scale, margin, side} = META;
  const peak = 2 ** (8 * pixels.BYTES_PER_ELEMENT) - 1;
  const out = new pixels.constructor(width * height * scale ** 2);
  const [tall, rows] = spans(height, side, margin), [wide, columns] = spans(width, side, margin);
  let done = 0;
  for (const y of rows) for (const x of columns) {
    const lr = new Float32Array(tall * wide);
    for (let i = 0; i < tall; i++) for (let j = 0; j < wide; j++) {
      lr[i * wide + j] = pixels[(y.start + i) * width + x.start + j] / peak;
    }
    const {sr} = await ask({lr, shape: [1, tall, wide, 1]});
    if (canceled()) return undefined;
    for (let i = scale * y.first; i < scale * y.last; i++) {
      const from = (i - scale * y.start) * wide * scale - scale * x.start;
      for (let j = scale * x.first; j < scale * x.last; j++) {
        const value = Math.min(1, Math.max(0, sr[from + j]));
        out[i * width * scale + j] = Math.round(value * peak);
      }
    }
    progress(++done / rows.length / columns.length);
  }
  return {pixels: out, width: width * scale, height: height * scale, bits};
}

// Keys' cubic, cut off and renormalized at the border.
function bicubic(film, scale) {
  const {pixels, width, height, bits} = film;
  const peak = 2 ** (8 * pixels.BYTES_PER_ELEMENT) - 1, wide = width * scale;
  const across = taps(width, scale), down = taps(height, scale);
  const middle = new Float32Array(height * wide);
  for (let y = 0; y < height; y++) for (let x = 0; x < wide; x++) {
    const [from, weights] = across[x];
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k] * pixels[y * width + from + k];
    middle[y * wide + x] = sum;
  }
  const out = new pixels.constructor(height * scale * wide);
  for (let y = 0; y < height * scale; y++) {
    const [from, weights] = down[y];
    for (let x = 0; x < wide; x++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * middle[(from + k) * wide + x];
      out[y * wide + x] = Math.min(peak, Math.max(0, Math.round(sum)));
    }
  }
  return {pixels: out, width: wide, height: height * scale, bits};
}

function taps(length, scale) {
  const cubic = x => x < 1 ? 1.5 * x ** 3 - 2.5 * x ** 2 + 1 :
    x < 2 ? -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2 : 0;
  return Array.from({length: length * scale}, (_, i) => {
    const center = (i + 0.5) / scale - 0.5;
    const from = Math.max(0, Math.floor(center) - 1), to = Math.min(length - 1, Math.floor(center) + 2);
    const weights = [];
    for (let j = from; j <= to; j++) weights.push(cubic(Math.abs(center - j)));
    const sum = weights.reduce((a, b) => a + b);
    return [from, weights.map(weight => weight / sum)];
  });
}
