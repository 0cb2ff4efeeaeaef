"""`jaxsr compare`: its table, its page, and that it agrees with `jaxsr evaluate`."""

import contextlib
import csv
import json

import pytest

from jaxsr import cli
from jaxsr.data import image_files
from jaxsr.evaluation import unfinished
from jaxsr.evaluation.evaluator import Evaluator


def jaxsr(*arguments):
  return cli.run([str(argument) for argument in arguments])


def table(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def test_compare_gives_the_figures_of_evaluate(folder, tmp_path, capsys):
  (folder / 'broken.png').write_bytes(b'no image')
  output = tmp_path / 'cmp'
  assert jaxsr('compare', 'lanczos', 'bicubic', '--data', folder, '--output', output) == 1
  assert 'broken.png' in capsys.readouterr().err
  bicubic, lanczos = table(output / 'compare.csv')
  assert float(bicubic['consistency']) == float(lanczos['consistency']) == 100
  assert (bicubic['network'], lanczos['network'], lanczos['n']) == ('bicubic', 'lanczos', '4')
  options = ('--checkpoint', 'lanczos', '--data', folder, '--output', tmp_path / 'eval')
  assert jaxsr('evaluate', *options) == 1
  summary = json.loads((tmp_path / 'eval' / 'summary.json').read_text())
  raw = ('--data', folder, '--output', tmp_path / 'raw', '--no-agree')
  assert jaxsr('compare', 'lanczos', 'bicubic', *raw) == 1
  raw_bicubic, raw_lanczos = table(tmp_path / 'raw' / 'compare.csv')
  assert 'raw_psnr' not in raw_bicubic
  for name in ('psnr', 'ssim_centre', 'consistency', 'high_frequency'):
    assert float(raw_lanczos[name]) == pytest.approx(summary[name], rel=1e-12)
    assert float(raw_bicubic[name]) == pytest.approx(summary[f'bicubic_{name}'], rel=1e-12)
  for name in ('psnr', 'ssim', 'psnr_centre'):  # rows of images that agree also have the others
    assert float(lanczos[f'raw_{name}']) == pytest.approx(summary[name], rel=1e-6)
    assert float(bicubic[f'raw_{name}']) == pytest.approx(summary[f'bicubic_{name}'], rel=1e-6)
  rows = table(output / 'compare_per_image.csv')
  assert [row['network'] for row in rows] == ['lanczos'] * 4 + ['bicubic'] * 4
  html = (output / 'report.html').read_text()
  assert html.count('class="film"') == 3 and 'where lanczos errs most' in html


def test_an_interrupted_comparison_continues(folder, tmp_path, monkeypatch):
  measured, measure, limits = [], Evaluator.measure, [6]

  def interrupted(self, variables, index, pair=None):
    if len(measured) in limits:
      raise KeyboardInterrupt
    measured.append(index)
    return measure(self, variables, index, pair)

  output = tmp_path / 'cmp'
  command = ('compare', 'lanczos', 'bicubic', '--data', folder, '--output', output)
  monkeypatch.setattr(Evaluator, 'measure', interrupted)
  with contextlib.suppress(KeyboardInterrupt):
    assert jaxsr(*command) != 0
  assert [path.name for path in output.iterdir()] == [unfinished.FILE]
  with (output / unfinished.FILE).open('a') as file:
    file.write('\n["cut off')
  measured.clear()
  limits.clear()
  assert jaxsr(*command) == 0
  assert measured[:2] == [2, 3] and len(measured) == 2 + 2 * 3  # the films of the page, again
  assert not (output / unfinished.FILE).exists()
  kept = (output / 'compare.csv').read_text()
  monkeypatch.undo()
  assert jaxsr(*command[:-1], tmp_path / 'again') == 0
  assert (tmp_path / 'again' / 'compare.csv').read_text() == kept


@pytest.mark.parametrize(
  ('arguments', 'text'),
  [
    (('edsr_x2', 'edsr_x4_tiny'), 'edsr_x2 x2, edsr_x4_tiny x4; choose models of one scale'),
    (('bicubic', 'bicubic'), 'bicubic is given twice'),
  ],
)
def test_models_that_cannot_be_compared_are_refused(tmp_path, film, capsys, arguments, text):
  image_files.write(tmp_path / 'a.png', film)
  options = ('--data', tmp_path / 'a.png', '--output', tmp_path / 'cmp')
  assert jaxsr('compare', *arguments, *options) == 2
  assert text in capsys.readouterr().err
  assert not (tmp_path / 'cmp').exists()
