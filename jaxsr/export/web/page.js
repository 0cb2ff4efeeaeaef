// The page: takes a film, shows progress and the result, and saves it.

const SUFFIX = /(?<=.)\.[a-z][a-z0-9]{0,4}$/i;  // the last number of an identifier is none

let film, result, job = 0;
const view = new View($('view'));

function say(text, bad = false) {
  $('status').textContent = text;
  $('status').classList.toggle('bad', bad);
}

function left(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}

// Take what was chosen or dropped.
function take(files) {
  if (files.length <= 1) { if (files.length) open(files[0]); return; }
  stop();
  $('result').hidden = true;  // of the film before
  say(`${files.length} files: this page takes one at a time`, true);
  finish('failed');
}

async function open(file) {
  const own = ++job, canceled = () => own !== job;
  stopIfBusy();
  $('bar').hidden = $('cancel').hidden = false;
  $('bar').removeAttribute('value');
  say(`${file.name}: reading`);
  document.body.dataset.state = 'busy';
  try {
    const read = await readFilm(file);
    if (canceled()) return;
    say(`${file.name}: ${read.width}×${read.height}, ${read.bits} bit. Starting the network`);
    const threads = await startNetwork(), began = performance.now();
    if (canceled()) return;
    const progress = share => {
      const rest = (performance.now() - began) / 1000 * (1 - share) / share;
      $('bar').value = share;
      say(`${file.name}: enlarging, ${Math.round(100 * share)} %, about ${left(rest)} left`);
    };
    const large = await enlarge(read, progress, canceled);
    if (canceled()) return;
    [film, result] = [{...read, name: file.name}, large];
    $('result').hidden = false;
    $('save').textContent = `Save ${savedName()}`;
    view.open(bicubic(read, META.scale), large);
    setWindow(0.5, 1);
    const remark = read.remark ? `. It ${read.remark}` : '';
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    say(`${file.name}: ${read.width}×${read.height} → ${large.width}×${large.height}, ` +
      `${large.bits} bit, ${seconds} s on ${threads} thread${threads > 1 ? 's' : ''}${remark}`);
    finish('done');
  } catch (error) {
    if (canceled()) return;
    $('result').hidden = true;  // of the film before
    say(`${file.name} ${error.message}`, true);
    finish('failed');
  }
}

function finish(state) {
  $('bar').hidden = $('cancel').hidden = true;
  document.body.dataset.state = state;
}

// End what is under way.
function stop() {
  job++;
  stopIfBusy();
}

function stopIfBusy() {
  if (document.body.dataset.state === 'busy') stopNetwork();
}

function setWindow(level, width) {
  $('level').value = level;
  $('width').value = width;
  view.setWindow(level - width / 2, level + width / 2);
}

// From the darkest to the brightest hundredth.
function autoWindow() {
  const counts = new Uint32Array(view.peak + 1), {pixels} = result;
  for (let i = 0; i < pixels.length; i++) counts[pixels[i]]++;
  const at = share => {
    let sum = 0, value = 0;
    while (value < view.peak && (sum += counts[value]) < share * pixels.length) value++;
    return value / view.peak;
  };
  const low = at(0.01), high = Math.max(low + 0.01, at(0.99));
  setWindow((low + high) / 2, high - low);
}

function savedName() {
  return `${film.name.replace(SUFFIX, '')}_x${META.scale}.png`;
}

async function save() {
  const link = document.createElement('a');
  link.download = savedName();  // before another film may take the place of this one
  $('save').disabled = true;
  try {
    link.href = URL.createObjectURL(await writePng(result, META.comment));
  } finally {
    $('save').disabled = false;
  }
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

$('drop').onclick = () => $('file').click();
$('drop').onkeydown = event => {
  if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); $('file').click(); }
};
$('file').onchange = () => {
  const files = [...$('file').files];
  $('file').value = '';
  take(files);
};
addEventListener('dragover', event => { event.preventDefault(); $('drop').classList.add('over'); });
addEventListener('dragleave', () => $('drop').classList.remove('over'));
addEventListener('drop', event => {
  event.preventDefault();
  $('drop').classList.remove('over');
  take(event.dataTransfer.files);
});
$('try').onclick = () => {
  const png = Uint8Array.from(atob($('phantom').textContent), letter => letter.charCodeAt(0));
  open(new File([png], 'phantom.png'));
};
$('cancel').onclick = () => {
  stop();
  say('Canceled');
  finish('canceled');
};
$('save').onclick = save;
$('fit').onclick = () => view.show();
$('one').onclick = () => view.show(1);
$('four').onclick = () => view.show(4);
$('level').oninput = $('width').oninput = () => setWindow(+$('level').value, +$('width').value);
$('auto').onclick = autoWindow;
$('full').onclick = () => setWindow(0.5, 1);
