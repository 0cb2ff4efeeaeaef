"""Report pages, driven in a headless Chromium; without one, those tests are skipped."""

import base64
import io
import re
import shutil
from html import escape

import numpy as np
import pytest
from PIL import Image

from jaxsr import cli
from jaxsr.data import degradation, image_files
from jaxsr.evaluation import html
from jaxsr.evaluation import page as evaluation_page
from jaxsr.evaluation.figures import FIGURES
from jaxsr.evaluation.html import figures
from jaxsr.inference.model import load

CHROMIUM = next(
  filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)


@pytest.fixture(scope='module')
def browser():
  """A headless Chromium."""
  playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
  if CHROMIUM is None:
    pytest.skip('no Chromium is installed')
  with playwright.sync_playwright() as driver:
    started = driver.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
    yield started
    started.close()


@pytest.fixture
def opened(browser):
  """Open a file; afterward, nothing was logged and nothing but the file was requested."""
  contexts, problems = [], []

  def open_page(path, **options):
    context = browser.new_context(**options)
    contexts.append(context)
    shown = context.new_page()
    shown.on('console', lambda message: problems.append(message.text))
    shown.on('pageerror', lambda error: problems.append(str(error)))
    allowed = (path.as_uri(), 'data:')
    shown.on('request', lambda r: r.url.startswith(allowed) or problems.append(f'request {r.url}'))
    shown.goto(path.as_uri())
    return shown

  yield open_page
  for context in contexts:
    context.close()
  assert not problems


def make_film(rng):
  hr = rng.uniform(0, 1, (64, 64, 1))
  versions = {'bicubic': np.zeros_like(hr), 'network': np.ones_like(hr), 'HR': hr}
  mask = np.zeros((64, 64), bool)
  mask[16:32, 16:32] = True
  captions = {name: f'{name}, 40 dB' for name in versions}
  return html.Film(
    'worst: a.png', versions, captions, {'corner': (0, 8, 32)}, {'doubt': {'network': mask}}
  )


@pytest.fixture
def path(tmp_path, rng):
  """A page with one part of each kind."""
  table = html.Table(['', 'PSNR'], [html.Row([html.Term('psnr', 'PSNR'), '<40>'], True)])
  drawn = html.Figures([(figures.distribution('PSNR', {'a': [1.0, 2.0], 'b': [3.0]}), 'dots')])
  small = html.Pictures([(rng.uniform(0, 1, (8, 8, 1)), 'crop')])
  section = html.Section('All', 'note', [table, drawn, small, make_film(rng)])
  known = {'psnr': ('PSNR', 'in decibels'), 'ssim': ('SSIM', 'on no table')}
  page = html.Page('Title & more', 'lead', [section], known)
  html.write(tmp_path / 'page.html', page)
  return tmp_path / 'page.html'


def brightness(shown, x):
  """The mean of the pixels of the film in the column at a share of its width."""
  box = shown.locator('.stage').bounding_box()
  clip = {'x': box['x'] + x * box['width'], 'y': box['y'], 'width': 2, 'height': box['height']}
  return np.asarray(Image.open(io.BytesIO(shown.screenshot(clip=clip))).convert('L')).mean()


def test_the_slider_moves_the_boundary_between_the_chosen_versions(path, opened):
  shown = opened(path, viewport={'width': 800, 'height': 1600})
  assert brightness(shown, 0.3) < 5 and brightness(shown, 0.7) > 250
  box = shown.locator('.stage').bounding_box()
  middle = box['y'] + box['height'] / 2
  shown.mouse.move(box['x'] + box['width'] / 2, middle)
  shown.mouse.down()
  shown.mouse.move(box['x'] + 0.9 * box['width'], middle, steps=4)
  shown.mouse.up()
  assert brightness(shown, 0.7) < 5 and brightness(shown, 0.96) > 250
  shown.locator('select.left').select_option('network')
  assert brightness(shown, 0.7) > 250


def test_overlays_are_switched_and_places_enlarged(path, opened):
  shown = opened(path)
  overlay = shown.locator('.view.shown img.overlay')
  assert not overlay.is_visible()
  shown.get_by_label('doubt').check()
  assert overlay.is_visible()
  shown.get_by_role('button', name='corner').click()
  assert shown.locator('.view.shown').get_attribute('data-title') == 'corner'
  assert shown.locator('.view.shown img.overlay').is_visible()
  sides = 'e => [e.naturalWidth, e.naturalHeight]'
  assert shown.locator('.view.shown .on-left img').evaluate(sides) == [32, 32]
  shown.get_by_label('doubt').uncheck()
  assert not shown.locator('.view.shown img.overlay').is_visible()


def test_a_definition_is_one_click_away_and_printed(path, opened):
  shown = opened(path)
  definition = shown.locator('#term-psnr')
  assert not definition.is_visible()
  shown.locator('button.term').click()
  assert definition.is_visible() and 'in decibels' in definition.inner_text()
  shown.keyboard.press('Escape')
  assert not definition.is_visible()
  shown.emulate_media(media='print')
  assert definition.is_visible()
  assert all(each.is_visible() for each in shown.locator('.version img:not(.overlay)').all())


def test_a_double_click_enlarges_the_place(path, opened):
  shown = opened(path, viewport={'width': 800, 'height': 1600})
  image = shown.locator('.view.shown .on-left img').first
  width = image.bounding_box()['width']
  x, y, side = (shown.locator('.stage').bounding_box()[name] for name in ('x', 'y', 'width'))
  shown.mouse.dblclick(x + side / 4, y + side / 2)
  enlarged = image.bounding_box()
  assert enlarged['width'] == pytest.approx(4 * width)
  assert x + side / 4 == pytest.approx(enlarged['x'] + enlarged['width'] / 4)  # stays in place
  assert shown.get_by_role('button', name='4x').get_attribute('aria-pressed') == 'true'
  shown.get_by_role('button', name='4x').click()
  assert image.bounding_box()['width'] == pytest.approx(width)


def test_wide_tables_are_printed_whole(tmp_path, opened):
  cells = [f'0.{i:03d} [0.12, 0.34]' for i in range(9)]
  table = html.Table(['nodule, 4 px, 5 %', *cells], [html.Row(['nodule, 4 px, 5 %', *cells])])
  html.write(tmp_path / 'page.html', html.Page('wide', '', [html.Section('', '', [table])]))
  shown = opened(tmp_path / 'page.html', viewport={'width': 718, 'height': 1000})  # A4
  fits = 'document.querySelector("table").getBoundingClientRect().right <= 718'
  assert not shown.evaluate(fits)
  shown.emulate_media(media='print')
  assert shown.evaluate(fits)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_page_fits_a_phone_in_both_color_schemes(path, opened, scheme):
  shown = opened(path, viewport={'width': 360, 'height': 740}, color_scheme=scheme)
  assert shown.evaluate('document.documentElement.scrollWidth') <= 360
  paper, text = shown.evaluate(
    '[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]'
  )
  light = [sum(map(int, re.findall(r'\d+', color)[:3])) for color in (paper, text)]
  assert (light[0] > light[1]) == (scheme == 'light')


def test_a_page_is_escaped_and_self_contained(path):
  text = path.read_text()
  assert 'Title &amp; more' in text and '&lt;40&gt;' in text and '<40>' not in text
  assert not re.search(r'(src|href)="(?!data:|#)', text)
  assert 'on no table' not in text  # only the definitions of its terms
  assert '#123457' not in text  # figures take the color of the text


def test_any_name_of_a_network_is_drawn_as_it_is():
  names = ('_small', 'a$b', '$\\foo$', '<b>&"')
  drawn = figures.distribution('PSNR', {name: [1.0, 2.0] for name in names})
  drawn += figures.intervals('gain', ['row'], {name: [(1.0, None)] for name in names})
  for name in names:
    assert drawn.count(f'>{escape(name, quote=False)}</text>') == 2


def test_evaluate_writes_its_page(folder, tmp_path, opened):
  arguments = ('evaluate', '--checkpoint', 'lanczos', '--data', folder, '--output', tmp_path / 'e')
  assert cli.run([str(argument) for argument in arguments]) == 0
  shown = opened(tmp_path / 'e' / 'report.html')
  assert shown.locator('h3').all_inner_texts()[0].startswith('best: ')
  assert shown.locator('.film').count() == 3
  header = shown.locator('thead').first.inner_text().split()
  assert header == ['bicubic', 'lanczos', 'gain']
  assert shown.locator('svg').count() == sum(figure.drawn for figure in FIGURES.values())


def test_the_doubt_of_a_calibrated_model_is_switched(tmp_path, opened, film):
  film = film.copy()
  film[40:56:2, 32:64] = 255  # lines that the low resolution cannot hold
  image_files.write(tmp_path / 'a.png', film)
  arguments = ('--checkpoint', 'edsr_x4_tiny', '--data', tmp_path / 'a.png')
  assert cli.run(['evaluate', *map(str, arguments), '--output', str(tmp_path / 'e')]) == 0
  doubt = load('edsr_x4_tiny').confidence(degradation.downscale(film, 4)).doubt
  assert doubt[48, 48] and not doubt.all()
  shown = opened(tmp_path / 'e' / 'report.html').locator('.film').first
  overlay = shown.locator('.view.shown img.overlay')
  assert not overlay.is_visible()
  shown.get_by_label('doubt').check()
  assert overlay.is_visible()
  data = base64.b64decode(overlay.get_attribute('src').partition(',')[2])
  opacity = np.asarray(Image.open(io.BytesIO(data)))[..., 3]
  np.testing.assert_array_equal(opacity > 0, doubt)
  shown.get_by_label('doubt').uncheck()
  assert not overlay.is_visible()


def test_a_calibration_of_other_weights_is_warned_of(tmp_path, film, capsys):
  package = tmp_path / 'package'
  shutil.copytree(load('edsr_x4_tiny').folder, package)
  shutil.copy(load('edsr_x4_small').folder / 'calibration.json', package)
  image_files.write(tmp_path / 'a.png', film)
  arguments = ('--checkpoint', package, '--data', tmp_path / 'a.png', '--output', tmp_path / 'e')
  assert cli.run(['evaluate', *map(str, arguments)]) == 0
  assert 'doubt is not shown: the calibration is for edsr_x4_small' in capsys.readouterr().err
  assert 'data-overlay="doubt' not in (tmp_path / 'e' / 'report.html').read_text()


def test_evaluate_without_the_packages_leaves_the_page_out(folder, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(html, 'NEEDED', ('no_such_package',))
  options = ('--data', folder / 'a.png', '--checkpoint', 'bicubic', '--output', tmp_path / 'e')
  assert cli.run(['evaluate', *map(str, options)]) == 0
  error = capsys.readouterr().err
  assert "needs no_such_package; pip install 'jaxsr-xray[report]'" in error
  assert not (tmp_path / 'e' / html.PAGE).exists()
  assert (tmp_path / 'e' / 'summary.json').exists()


def test_the_place_of_the_largest_error_is_found(rng):
  hr = rng.uniform(0, 1, (160, 128, 1))
  for top, left in ((0, 0), (40, 77), (144, 112)):
    image = hr.copy()
    image[top : top + 16, left : left + 16] += 0.5
    assert evaluation_page.place(image, hr) == (top, left, 16)
