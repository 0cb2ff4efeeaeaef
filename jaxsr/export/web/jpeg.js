// Decode JPEG: baseline and progressive by the browser, lossless ones by two libraries.

const BY_BROWSERS = [0xc0, 0xc1, 0xc2];  // sequential and progressive frames
const MORE = new Uint8Array(64);  // bytes without which a decoder loses short codes of the last one

// Decode what browsers decode: baseline and progressive JPEG of 8 bits. It is not turned upright.
async function readJpeg(bytes) {
  const {kind, bits, width, height, components} = jpegFrame(bytes);
  checkSize(width, height);
  if (!BY_BROWSERS.includes(kind) || bits !== 8) {
    const name = kind === JPEG_LS_FRAME ? 'JPEG-LS' : `JPEG of ${bits} bits or another kind`;
    throw new Error(`is ${name}, which browsers do not decode: use jaxsr upscale`);
  }
  if (components.length > 3) throw new Error('is JPEG in CMYK; convert it to gray');
  const {left} = checkScans(bytes);
  const remark = left && `has ${left} bytes after its last pixel, so it may be damaged`;
  const {plain} = withoutMetadata(bytes);
  return {...await readByBrowser(new Blob([plain], {type: 'image/jpeg'})), remark};
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
    checkGray(data[4 * i], data[4 * i + 1], data[4 * i + 2], 2);
    pixels[i] = data[4 * i + 1];
  }
  return {pixels, width, height, bits: 8};
}

let charls;  // started by the first film that needs it

// Returns the bytes of the pixels of a JPEG Lossless or JPEG-LS frame.
async function decodeLossless(frame, isJpegLs) {
  if (isJpegLs && !hasEnd(frame)) throw lost();
  const {end} = isJpegLs ? {} : checkScans(frame);
  try {
    return isJpegLs ? await decodeJpegLs(frame) : decodeCodes(frame, end);
  } catch {
    charls = undefined;  // damaged data may leave it without memory
    throw new Error('is damaged: its pixels cannot be decoded');
  }
}

async function decodeJpegLs(frame) {
  charls ??= unpack('charls').then(wasmBinary => CharLSWASM({wasmBinary}));
  const decoder = new (await charls).JpegLSDecoder();
  decoder.getEncodedBuffer(frame.length).set(frame);
  decoder.decode();
  const raw = decoder.getDecodedBuffer().slice().buffer;
  decoder.delete();
  return raw;
}

// The library does not round down the seventh predictor of values of 16 bits.
jpegLossless.Decoder.prototype.select7 = function (component) {
  return this.getPreviousX(component) + this.getPreviousY(component) >> 1;
};

function decodeCodes(frame, end) {
  const whole = concatenated([frame.subarray(0, end - 2), MORE, frame.subarray(end - 2, end)]);
  const raw = new jpegLossless.Decoder().decompress(whole.buffer, 0, whole.length);
  return new Uint8Array(raw.buffer ?? raw).buffer;
}

// Whether the end of the image is there: the decoder of JPEG-LS fills what is missing.
function hasEnd(frame) {
  return frame.some((value, i) => value === 0xd9 && frame[i - 1] === 0xff);
}
