"""`--trust`, `--lesions` and `--reader`: their files, their page, and that a run is resumed."""

import csv
import json
import shutil

import numpy as np
import pytest

from jaxsr import cli
from jaxsr.data import image_files
from jaxsr.data.phantom import phantom
from jaxsr.inference.model import load
from jaxsr.trust import audit, lesions, parts, readers, study
from nih_files import table as nih_table

FILMS = [f'0000000{i}_000.png' for i in range(4)]


def jaxsr(*arguments):
  return cli.run([str(argument) for argument in arguments])


def table(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


def classify(x):
  """A reader: the spread of a film, and a finding that it cannot see."""
  return np.stack([np.minimum(3 * x.std((1, 2, 3)), 1), np.full(len(x), 0.5)], axis=1)


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
  """An evaluation with all parts: its command, and its output."""
  root = tmp_path_factory.mktemp('trust')
  (root / 'films').mkdir()
  (root / 'tables').mkdir()
  for i, name in enumerate(FILMS):
    image_files.write(root / 'films' / name, phantom(7, i, size=256, nodules=0)[..., None])
  labels = ('Mass', 'Mass|Nodule', 'Nodule', 'No Finding')
  entries = [
    f'{name},{found},0,{i},58,M,PA,2682,2749,0.143,0.143'
    for i, (name, found) in enumerate(zip(FILMS, labels, strict=True))
  ]
  (root / 'tables' / 'Data_Entry_2017_v2020.csv').write_text(nih_table(*entries))
  (root / 'reader.json').write_text(json.dumps({'findings': ['Mass', 'Nodule'], 'size': 128}))
  command = ('evaluate', '--checkpoint', 'lanczos', '--data', root / 'films')
  command += ('--tables', root / 'tables', '--output', root / 'eval')
  more = ('--trust', '--lesions', '--reader', f'{__name__}:classify')
  more += ('--reader-config', root / 'reader.json')
  tiny = load('edsr_x4_tiny')  # a small network for `unsupported`
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(study, 'PHANTOMS', 0)
    patch.setattr(study, 'DESIGN', tuple(lesions.DESIGN[i] for i in (4, 7, 9)))
    patch.setattr(parts, 'load', lambda scale: tiny)
    patch.setattr(readers, 'LEAST', 2)
    assert jaxsr(*command, *more) == 0
    yield command, more, root / 'eval'


def test_the_audit_has_a_row_per_film_and_network(evaluated):
  _, _, output = evaluated
  found = json.loads((output / 'trust.json').read_text())
  assert list(found['audit']) == ['bicubic', 'lanczos'] and found['audit']['lanczos']['films'] == 4
  assert found['audit']['lanczos']['unsupported'] > 0
  rows = [(row['file'], row['network']) for row in table(output / 'trust.csv')]
  assert rows == [(name, network) for name in FILMS for network in ('bicubic', 'lanczos')]


def test_the_lesion_study_has_its_conditions_and_networks(evaluated):
  _, _, output = evaluated
  rows = table(output / 'lesions.csv')
  assert {row['condition'] for row in rows} == {'clean', 'low_dose'}
  assert {row['network'] for row in rows} == {'HR', 'bicubic', 'lanczos', study.ABSENT}
  assert {row['n'] for row in rows} == {'4'} and len(rows) == 2 * 3 * 4


def test_the_reader_is_asked_about_all_versions(evaluated):
  _, _, output = evaluated
  rows = table(output / 'readers.csv')
  assert [(row['finding'], row['network']) for row in rows] == [
    (finding, network) for finding in ('Mass', 'Nodule') for network in ('bicubic', 'lanczos')
  ]
  assert all((row['positive'], row['negative']) == ('2', '2') for row in rows)
  assert all(row['verdict'].startswith('not informative') for row in rows)
  unseen = rows[-1]
  ends = [float(unseen[f'to_hr{end}']) for end in ('', '_interval_low', '_interval_high')]
  assert ends == [0, 0, 0] and unseen['auroc'] == '0.5' and unseen['informative'] == 'False'
  assert 'not informative' in (output / 'report.html').read_text()


def test_the_page_has_all_parts(evaluated):
  _, _, output = evaluated
  html = (output / 'report.html').read_text()
  for text in ('Invented detail', 'flagged: lanczos', 'Lesions: films, low_dose', 'classify at'):
    assert text in html


def test_a_second_run_computes_nothing(evaluated, tmp_path, monkeypatch):
  command, more, output = evaluated
  again = tmp_path / 'again'
  shutil.copytree(output, again)
  command = (*command[:-1], again)

  def never(*_):
    raise AssertionError('computed again')

  monkeypatch.setattr(audit, 'audit', never)
  monkeypatch.setattr(study, 'observe', never)
  asked = []
  monkeypatch.setattr(readers.Reader, '__call__', lambda _, film: asked.append(film))
  assert jaxsr(*command, *more) == 0
  assert len(asked) == 1  # whether it works at all
  for name in ('trust.csv', 'lesions.csv', 'readers.csv', 'trust.json'):
    assert (again / name).read_bytes() == (output / name).read_bytes()
  assert jaxsr(*command) == 0
  assert not (again / 'trust.json').exists() and not (again / 'readers.csv').exists()


def test_films_without_patches_or_that_cannot_be_read_do_not_stop_the_audit(tmp_path, monkeypatch):
  """Twice, so that the files of the first run are recognized."""
  (tmp_path / 'films').mkdir()
  (tmp_path / 'films' / '0_broken.png').write_bytes(b'no image')
  film = phantom(7, 0, size=64, nodules=0)[..., None]
  image_files.write(tmp_path / 'films' / '1_small.png', film[:48, :41])
  image_files.write(tmp_path / 'films' / '2_<b>&"$x$.png', film)
  tiny = load('edsr_x4_tiny')
  monkeypatch.setattr(parts, 'load', lambda scale: tiny)
  for _ in range(2):
    options = ('--data', tmp_path / 'films', '--output', tmp_path / 'e', '--checkpoint', 'bicubic')
    assert jaxsr('evaluate', *options, '--trust') == 1
  rows = table(tmp_path / 'e' / 'trust.csv')
  assert [(row['file'], row['patches']) for row in rows] == [
    ('1_small.png', '0'),
    ('2_<b>&"$x$.png', '1'),
  ]
  assert rows[0]['flagged'] == '' and rows[1]['flagged'] != ''
  html = (tmp_path / 'e' / 'report.html').read_text()
  assert '2_&lt;b&gt;&amp;&#34;$x$.png' in html and '<b>' not in html
  pictured = image_files.read(tmp_path / 'e' / 'trust.png', 3)
  assert pictured.shape[0] == 2 * 202 + 6  # a row per film


@pytest.mark.parametrize(
  ('option', 'text'),
  [
    (('--protocol', 'luma'), 'need the protocol xray'),
    (('--lr', '{films}'), 'leave --lr out'),
    (('--shard', '1/2'), 'give them to the last command, without --shard'),
    (('--reader', 'a:b', '--reader-config', 'c.json'), 'are not known; give --tables'),
    (('--reader-config', 'c.json'), 'c.json: there is no --reader'),
  ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, film, capsys, option, text):
  (tmp_path / 'films').mkdir()
  image_files.write(tmp_path / 'films' / 'a.png', film)
  options = [each.format(films=tmp_path / 'films') for each in option]
  command = ('evaluate', '--data', tmp_path / 'films', '--output', tmp_path / 'e', '--trust')
  assert jaxsr(*command, *options) == 2
  assert text in capsys.readouterr().err
