"""`--trust` and `--lesions`: their files, their page, and that a second run computes nothing."""

import csv
import json

import pytest

from jaxsr import cli
from jaxsr.data import image_files
from jaxsr.data.phantom import phantom
from jaxsr.inference.model import load
from jaxsr.trust import audit, parts, study


def jaxsr(*arguments):
  return cli.run([str(argument) for argument in arguments])


def table(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def test_an_evaluation_is_audited_once(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(study, 'PHANTOMS', 0)
  tiny = load('edsr_x4_tiny')  # a small network for `unsupported`
  monkeypatch.setattr(parts, 'load', lambda scale: tiny)
  films, output = tmp_path / 'films', tmp_path / 'eval'
  films.mkdir()
  for i in range(5):
    image_files.write(films / f'{i}.png', phantom(7, i, size=512, nodules=0)[..., None])
  command = ('evaluate', '--checkpoint', 'lanczos', '--data', films, '--output', output)
  assert jaxsr(*command, '--trust', '--lesions') == 0
  found = json.loads((output / 'trust.json').read_text())
  assert list(found['audit']) == ['bicubic', 'lanczos'] and found['audit']['lanczos']['films'] == 5
  assert found['audit']['lanczos']['unsupported'] > 0
  rows = table(output / 'trust.csv')
  assert [(row['file'], row['network']) for row in rows[:3]] == [
    ('0.png', 'bicubic'),
    ('0.png', 'lanczos'),
    ('1.png', 'bicubic'),
  ]
  lesions = table(output / 'lesions.csv')
  assert {row['condition'] for row in lesions} == {'clean', 'low_dose'}
  assert {row['network'] for row in lesions} == {'HR', 'bicubic', 'lanczos', study.ABSENT}
  html = (output / 'report.html').read_text()
  assert 'Invented detail' in html and 'flagged in lanczos' in html and 'Lesions: films' in html

  def never(*_):
    raise AssertionError('computed again')

  monkeypatch.setattr(audit, 'audit', never)
  monkeypatch.setattr(study, 'observe', never)
  assert jaxsr(*command, '--trust', '--lesions') == 0
  assert table(output / 'lesions.csv') == lesions
  assert jaxsr(*command) == 0
  assert not (output / 'trust.json').exists()


@pytest.mark.parametrize(
  ('option', 'text'),
  [(('--protocol', 'luma'), 'need the protocol xray'), (('--lr', '{films}'), 'leave --lr out')],
)
def test_options_that_do_not_fit_are_refused(tmp_path, film, capsys, option, text):
  (tmp_path / 'films').mkdir()
  image_files.write(tmp_path / 'films' / 'a.png', film)
  options = [each.format(films=tmp_path / 'films') for each in option]
  command = ('evaluate', '--data', tmp_path / 'films', '--output', tmp_path / 'e', '--trust')
  assert jaxsr(*command, *options) == 2
  assert text in capsys.readouterr().err
