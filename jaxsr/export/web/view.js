// Shows two films of one size, divided by a line that can be moved: before on the left, after on
// the right. Only the visible part is drawn, from halved copies of the films where it is small.

// Shares of the width by which keys move the line
const STEPS = {ArrowLeft: -0.02, ArrowDown: -0.02, PageDown: -0.1, Home: -1};
Object.assign(STEPS, {ArrowRight: 0.02, ArrowUp: 0.02, PageUp: 0.1, End: 1});
// Shares of the box by which keys move the film, to the left and up; factors by which they zoom
const MOVES = {ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1]};
const ZOOMS = {'+': 1.25, '=': 1.25, '-': 0.8};

class View {
  constructor(box) {
    this.box = box;
    this.canvas = box.querySelector('canvas');
    this.handle = box.querySelector('.handle');
    this.split = 0.5;
    this.pointers = new Map();
    new ResizeObserver(() => this.resize()).observe(box);
    box.onwheel = event => {
      event.preventDefault();
      this.zoomAt(1.0015 ** -event.deltaY, event.offsetX, event.offsetY);
    };
    box.onpointerdown = event => this.press(event);
    box.onpointermove = event => this.move(event);
    box.onpointerup = box.onpointercancel = event => this.pointers.delete(event.pointerId);
    box.ondblclick = () => this.zoom === this.fitting() ? this.show(1) : this.show();
    this.handle.onkeydown = event => {
      const step = STEPS[event.key];
      if (step) { event.preventDefault(); this.setSplit(this.split + step); }
    };
    this.canvas.onkeydown = event => this.steer(event);
  }

  open(before, after) {
    this.before = halves(before);
    this.after = halves(after);
    this.peak = 2 ** (8 * after.pixels.BYTES_PER_ELEMENT) - 1;
    this.setWindow(0, 1);
    this.setSplit(0.5);
    this.resize();
    this.show();
  }

  // Show the values between two shares of the range, from black to white.
  setWindow(low, high) {
    this.table = new Uint32Array(this.peak + 1);
    for (let i = 0; i <= this.peak; i++) {
      const share = (i / this.peak - low) / Math.max(1e-6, high - low);
      const gray = Math.round(255 * Math.min(1, Math.max(0, share)));
      this.table[i] = 0xff000000 | gray * 0x10101;
    }
    this.draw();
  }

  setSplit(split) {
    this.split = Math.min(1, Math.max(0, split));
    this.handle.style.left = `${100 * this.split}%`;
    this.handle.setAttribute('aria-valuenow', Math.round(100 * this.split));
    this.draw();
  }

  resize() {
    const ratio = this.ratio = self.devicePixelRatio || 1, wasFitting = this.zoom === this.fitted;
    this.canvas.width = Math.max(1, Math.round(this.box.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.box.clientHeight * ratio));
    if (this.after) wasFitting ? this.show() : this.draw();
  }

  fitting() {
    const {width, height} = this.after[0];
    return Math.min(this.canvas.width / width, this.canvas.height / height);
  }

  // Center the film at a number of screen pixels per pixel; without one, fit it into the box.
  show(zoom) {
    const {width, height} = this.after[0], {canvas} = this;
    this.fitted = this.fitting();
    this.zoom = zoom ?? this.fitted;
    this.left = (canvas.width - width * this.zoom) / 2;
    this.top = (canvas.height - height * this.zoom) / 2;
    this.draw();
  }

  zoomAt(factor, x, y) {
    const next = Math.min(16, Math.max(this.fitting() / 2, this.zoom * factor));
    x *= this.ratio; y *= this.ratio;
    this.left = x - (x - this.left) * next / this.zoom;
    this.top = y - (y - this.top) * next / this.zoom;
    this.zoom = next;
    this.draw();
  }

  // Move or zoom by a key.
  steer(event) {
    const move = MOVES[event.key], zoom = ZOOMS[event.key];
    if (!this.after || !move && !zoom || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (zoom) return this.zoomAt(zoom, this.box.clientWidth / 2, this.box.clientHeight / 2);
    this.left += move[0] * this.canvas.width;
    this.top += move[1] * this.canvas.height;
    this.draw();
  }

  press(event) {
    if (!this.after) return;
    this.box.setPointerCapture(event.pointerId);
    const line = this.split * this.box.clientWidth, near = event.pointerType === 'touch' ? 28 : 14;
    const x = event.clientX - this.box.getBoundingClientRect().x;
    this.moving = Math.abs(x - line) < near && !this.pointers.size ? 'line' : 'film';
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
  }

  move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = [event.clientX, event.clientY], box = this.box.getBoundingClientRect();
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId);
    this.pointers.set(event.pointerId, now);
    if (this.moving === 'line') return this.setSplit((now[0] - box.x) / box.width);
    if (others.length) {  // two fingers
      const [other] = others[0].slice(1), distance = p => Math.hypot(p[0] - other[0], p[1] - other[1]);
      const middle = [0, 1].map(i => (now[i] + other[i]) / 2);
      this.zoomAt(distance(now) / Math.max(1, distance(last)), middle[0] - box.x, middle[1] - box.y);
    } else {
      this.left += (now[0] - last[0]) * this.ratio;
      this.top += (now[1] - last[1]) * this.ratio;
      this.draw();
    }
  }

  draw() {
    if (!this.after || this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.paint(); });
  }

  paint() {
    const {width, height} = this.canvas, image = new ImageData(width, height);
    const words = new Uint32Array(image.data.buffer), line = Math.round(this.split * width);
    this.fill(words, this.before, 0, line);
    this.fill(words, this.after, line, width);
    this.canvas.getContext('2d').putImageData(image, 0, 0);
  }

  fill(words, levels, first, last) {
    const level = Math.min(levels.length - 1, Math.max(0, Math.floor(Math.log2(1 / this.zoom))));
    const {pixels, width, height} = levels[level], {table, canvas} = this;
    const step = 1 / this.zoom / 2 ** level, smooth = this.zoom < 1;
    for (let y = 0; y < canvas.height; y++) {
      const v = (y + 0.5 - this.top) * step;
      if (v < 0 || v >= height) continue;
      const [row, below, down] = between(v, height, smooth);
      for (let x = first; x < last; x++) {
        const u = (x + 0.5 - this.left) * step;
        if (u < 0 || u >= width) continue;
        if (!smooth) { words[y * canvas.width + x] = table[pixels[row * width + (u | 0)]]; continue; }
        const at = Math.max(0, u - 0.5), column = at | 0, right = Math.min(width - 1, column + 1);
        const part = at - column, i = row * width, j = below * width;
        const above = pixels[i + column] + part * (pixels[i + right] - pixels[i + column]);
        const under = pixels[j + column] + part * (pixels[j + right] - pixels[j + column]);
        words[y * canvas.width + x] = table[(above + down * (under - above) + 0.5) | 0];
      }
    }
  }
}

function between(place, length, smooth) {
  if (!smooth) return [place | 0, place | 0, 0];
  const at = Math.max(0, place - 0.5), index = at | 0;
  return [index, Math.min(length - 1, index + 1), at - index];
}

// Returns a film and its halved copies, down to 256 pixels.
function halves(film) {
  const found = [film];
  while (Math.min(found.at(-1).width, found.at(-1).height) > 256) {
    const {pixels, width} = found.at(-1);
    const w = width >> 1, h = found.at(-1).height >> 1, out = new pixels.constructor(w * h);
    for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
      const i = 2 * y * width + 2 * x;
      out[y * w + x] = (pixels[i] + pixels[i + 1] + pixels[i + width] + pixels[i + width + 1] + 2) >> 2;
    }
    found.push({pixels: out, width: w, height: h});
  }
  return found;
}
