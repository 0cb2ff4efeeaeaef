"""NIH's images to records and back: the builder, the source, and what trains on it."""

import io
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nih_files import ENTRY, table, tar

pytest.importorskip('apache_beam', reason="records need pip install 'jaxsr-xray[nih]'")
pytest.importorskip('tensorflow_datasets', reason="records need pip install 'jaxsr-xray[nih]'")

from jaxsr import cli
from jaxsr import config as configs
from jaxsr.config.overrides import override
from jaxsr.data import crops, degradation, fingerprint, image_files, pipeline, records, sources
from jaxsr.data.crops import Windows
from jaxsr.data.image_cache import Films
from jaxsr.data.nih import builder, shards
from jaxsr.data.nih.metadata import Entry
from jaxsr.data.nih.shards import Plan
from jaxsr.data.nih.splits import Rule
from jaxsr.data.records import Records
from jaxsr.errors import ImageError, UserError
from jaxsr.evaluation import unfinished
from jaxsr.evaluation.shards import Measured
from jaxsr.training.train import train

ROOT = Path(__file__).parents[2]
ONE = Entry('00000001_000.png', '00000001', (), 58, 'M', 'PA', 2682, 2749, (0.143, 0.143))
PATIENTS = 8
BAD = {  # what is wrong with an image, and what is said of it
  '00000009_000.png': 'is in color',
  '00000009_001.png': 'is truncated',
  '00000009_002.png': 'is 512x1024 uint8, not 1024x1024 uint8',
  '00000009_003.png': 'is 1024x1024 uint16',
  '00000009_004.png': 'cannot be decoded',
}
LOST = {'00000009_005.png': 'is a link to', '00000009_006.png': 'is not a regular file'}


def png(array):
  file = io.BytesIO()
  Image.fromarray(array).save(file, 'PNG', compress_level=1)
  return file.getvalue()


def draw(seed):
  """Draw a film with hard edges, uint8 [1024, 1024]."""
  rng = np.random.default_rng(seed)
  small = rng.integers(40, 200, (16, 16)).astype(np.uint8)
  image = np.asarray(Image.fromarray(small).resize((1024, 1024), Image.Resampling.BICUBIC)).copy()
  image[100:300, 200 + seed : 230] = 255
  return image


def write_table(folder, names):
  rows = []
  for name in names:
    patient = int(name[:8])
    finding = 'Pneumonia|Mass' if patient % 2 else 'No Finding'
    row = ENTRY.replace('00000001_000.png', name).replace(',1,', f',{patient},')
    rows.append(row.replace('No Finding', finding))
  (folder / 'Data_Entry_2017_v2020.csv').write_text(table(*rows))


@pytest.fixture(scope='module')
def copy(tmp_path_factory):
  """Lay two archives and a folder out: sixteen sound images, one of them RGBA, and bad ones."""
  folder = tmp_path_factory.mktemp('copy')
  names = [f'{patient:08d}_{i:03d}.png' for patient in range(1, PATIENTS + 1) for i in (0, 1)]
  files = {name: png(draw(i)) for i, name in enumerate(names)}
  gray = draw(0)
  files[names[0]] = png(np.stack([gray] * 3 + [np.full_like(gray, 255)], axis=-1))
  color = np.stack([gray, gray, 255 - gray], axis=-1)
  broken = bytearray(png(draw(1)))
  broken[len(broken) // 2] ^= 0xFF
  contents = (png(color), png(gray)[:5000], png(gray[:, :512]), png(gray.astype(np.uint16)))
  files |= dict(zip(BAD, (*contents, bytes(broken)), strict=True))
  files['00000099_000.png'] = png(gray)  # of no table
  everything = sorted(files)
  for i in range(2):
    some = everything[i:12:2]
    tar(folder / f'images_{i + 1:03d}.tar.gz', [(f'images/{n}', files[n]) for n in some])
  for name in everything[12:]:
    (folder / name).write_bytes(files[name])
  link, pipe = LOST
  (folder / link).symlink_to(folder / 'gone.png')
  os.mkfifo(folder / pipe)
  write_table(folder, [*everything[:-1], *LOST])
  for kind in ('train_val', 'test'):
    some = [n for n in (*names, *BAD, *LOST) if (n < '00000003') == (kind == 'test')]
    (folder / f'{kind}_list.txt').write_text('\n'.join(some))
  return folder


def run(*arguments):
  with pytest.raises(SystemExit) as exit:
    cli.main(['data', *map(str, arguments)])
  return exit.value.code


def prepare(copy, output, *arguments):
  return run('prepare', 'nih', copy, '--output', output, '--validation', 0.3, *arguments)


@pytest.fixture(scope='module')
def prepared(copy, tmp_path_factory):
  folder = tmp_path_factory.mktemp('records')
  assert prepare(copy, folder, '--workers', 1) == 1  # some images are damaged
  return folder


def read_all(folder):
  """Read every record: its name, split and pixels."""
  rows = records.read_index(records.find(folder))
  found = {}
  for split in sorted({row.split for row in rows}):
    source = Records(folder, split)
    found |= {(split, name): source[i].tobytes() for i, name in enumerate(source.names)}
  return found


def test_an_archive_that_cannot_be_read_is_left_out_and_named(tmp_path, capsys):
  copy, output = tmp_path / 'copy', tmp_path / 'records'
  copy.mkdir()
  (copy / '00000001_000.png').write_bytes(png(draw(0)))
  (copy / 'images_002.tar.gz').symlink_to(tmp_path / 'gone')
  write_table(copy, ['00000001_000.png'])
  for _ in range(2):  # the second run finds the records of the first
    assert prepare(copy, output, '--workers', 1, '--form', 'png') == 1
    err = capsys.readouterr().err
    assert f'left out: {copy}/images_002.tar.gz: is a link to a file or folder that does not' in err
  assert len(records.read_index(records.find(output))) == 1


def test_records_are_the_images_and_damaged_ones_are_named(prepared, capsys):
  found = read_all(prepared)
  names = [f'{patient:08d}_{i:03d}.png' for patient in range(1, PATIENTS + 1) for i in (0, 1)]
  assert sorted(name for _, name in found) == names
  for i, name in enumerate(names):
    (split,) = [s for s, n in found if n == name]
    assert found[split, name] == draw(0 if i == 0 else i).tobytes()
    assert (split == 'test') == (name < '00000003')
  facts = records.read_facts(records.find(prepared))
  assert sorted(error.partition(':')[0] for error in facts.failed) == sorted(BAD | LOST)
  for error in facts.failed:
    name, _, reason = error.partition(': ')
    assert (BAD | LOST)[name] in reason
  assert facts.unlisted == 1
  assert run('inspect', prepared, '--read') == 0
  out = capsys.readouterr().out
  assert '16 images' in out and 'left out, because damaged: 7 images' in out
  assert "publisher's test_list" in out


def files_of(folder):
  """Read the files of records, to the byte."""
  return {path.name: path.read_bytes() for path in records.find(folder).glob('*.array_record*')}


def test_patients_are_in_one_split(prepared):
  rows = records.read_index(records.find(prepared))
  splits = {row.patient: {r.split for r in rows if r.patient == row.patient} for row in rows}
  assert all(len(found) == 1 for found in splits.values())
  assert {split for found in splits.values() for split in found} == {'train', 'validation', 'test'}


@pytest.mark.parametrize('scale', [4, 2])
def test_a_film_is_what_a_folder_gives(prepared, scale):
  source = Records(prepared, 'train')
  for i in (0, len(source) - 1):
    mine, expected = source.film(i, scale), crops.make_film(source[i], scale)
    for a, b in zip(mine, expected, strict=True):
      np.testing.assert_array_equal(a, b)


def test_a_scale_that_does_not_divide_the_film_cuts_it(copy, tmp_path):
  assert prepare(copy, tmp_path, '--workers', 1, '--scale', 3) == 1
  source = Records(tmp_path, 'train')
  for a, b in zip(source.film(0, 3), crops.make_film(source[0], 3), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
  'options, reason',
  [
    (('--scale', 5), '--scale 5: choose one of 2, 3, 4, 8'),
    (('--test', 0.8), '--validation 0.3 and --test 0.8 must not be negative, and their sum must'),
    (('--labels', 'Gout'), "--labels 'Gout' is unknown"),
  ],
)
def test_what_cannot_be_prepared_is_a_line(copy, tmp_path, capsys, options, reason):
  assert prepare(copy, tmp_path, *options) == 2
  assert reason in capsys.readouterr().err


def test_file_systems_without_links_get_copies(copy, prepared, tmp_path, monkeypatch):
  def refuses(*names):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(os, 'link', refuses)
  assert prepare(copy, tmp_path, '--workers', 1) == 1
  assert read_all(tmp_path) == read_all(prepared)


@pytest.mark.parametrize('form', ['zstd', 'png'])
def test_every_form_holds_the_same(copy, prepared, tmp_path, form):
  assert prepare(copy, tmp_path, '--workers', 1, '--form', form) == 1
  assert read_all(tmp_path) == read_all(prepared)
  mine, expected = Records(tmp_path, 'train').film(1, 4), Records(prepared, 'train').film(1, 4)
  np.testing.assert_array_equal(mine.lr, expected.lr)


def test_a_film_is_always_the_same_bytes():
  """A map of protobuf has no order; its sorted names are looked for in the record."""
  image = {'hr': np.zeros((4, 4, 1), np.uint8), 'lr': np.zeros((1, 1, 1), np.uint8)}
  image['error'] = np.zeros(1, np.float32)
  plan = Plan('', (), '', Rule(), (), 'raw', 4)
  example = shards.make_example(ONE, png(draw(3)), plan) | image
  found = shards.serializer('raw')(example)
  names = sorted(
    ['age', 'error', 'findings', 'hr/shape', 'hr/value', 'lr/shape', 'lr/value', 'name']
  )
  places = [found.index(b'\n' + bytes([len(name)]) + name.encode()) for name in names]
  assert places == sorted(places)


@pytest.mark.parametrize('form', records.FORMS)
def test_plain_images_do_not_wait_for_pillow(monkeypatch, form):
  """Guard the speed of preparing, and of reading records of files."""
  for module, name in ((image_files, 'decode'), (degradation, 'resize')):
    monkeypatch.setattr(module, name, lambda *args: pytest.fail('Pillow was asked'))
  plan = Plan('', (), '', Rule(), (), form, 4)
  example = shards.make_example(ONE, png(draw(3)), plan)
  assert ('png' in example) == (form == 'png')
  monkeypatch.setattr(Records, '_read', lambda self, index: example)
  source = Records.__new__(Records)
  source.form, source.scale, source.channels = form, 4, 1
  for scale in (4, 2):
    assert source.film(0, scale).lr.shape == (1024 // scale, 1024 // scale, 1)


def test_a_missing_compiler_is_a_line(prepared, monkeypatch):
  monkeypatch.setitem(sys.modules, 'numba', None)
  for name in ('png', 'bicubic', 'transpose'):
    monkeypatch.delitem(sys.modules, f'jaxsr.data.fast.{name}', raising=False)
    monkeypatch.delattr(f'jaxsr.data.fast.{name}', raising=False)
  with pytest.raises(UserError, match='numba is missing: pip install'):
    Records(prepared, 'train').film(0, 2)


def test_tfds_reads_them(prepared):
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(str(records.find(prepared)))
  source = builder.as_data_source('test')
  found = source[0]
  assert found['hr'].shape == (1024, 1024, 1) and found['lr'].shape == (256, 256, 1)
  names = builder.info.features['findings'].feature.names
  assert [names[i] for i in found['findings']] == ['Pneumonia', 'Mass']
  assert 'tensorflow' not in sys.modules


def test_labels_choose(copy, prepared, tmp_path):
  rows = records.read_index(records.find(prepared))
  for label, wanted in (('pneumonia', 1), ('Mass', 1), ('normal', 0)):
    found = Records(prepared, f'train/{label}').rows
    of_train = sorted((r for r in rows if r.split == 'train'), key=lambda r: r.name)
    assert found == [r for r in of_train if int(r.patient) % 2 == wanted]
  with pytest.raises(UserError, match="'gout' has no images.*mass, normal, pneumonia"):
    Records(prepared, 'train/gout')
  with pytest.raises(
    UserError, match="split 'val' has no images: choose one of: test, train, validation"
  ):
    Records(prepared, 'val')
  assert prepare(copy, tmp_path, '--workers', 1, '--labels', 'No Finding') == 0
  assert {int(r.patient) % 2 for r in records.read_index(records.find(tmp_path))} == {0}


def test_a_damaged_archive_is_named_and_what_is_finished_is_kept(copy, prepared, tmp_path, capsys):
  lame, output = tmp_path / 'copy', tmp_path / 'records'
  shutil.copytree(copy, lame, ignore=shutil.ignore_patterns(*LOST))
  archive = lame / 'images_002.tar.gz'
  whole = archive.read_bytes()
  archive.write_bytes(whole[:-3000])
  assert prepare(lame, output, '--workers', 1) == 2
  error = capsys.readouterr().err
  assert 'images_002.tar.gz: is damaged' in error and '2 of 3 shards are finished' in error
  assert not list(output.glob('nih_chest_xray14/*'))
  (kept,) = output.glob('.unfinished-*')
  done = {path.stat().st_ino for path in kept.glob('*.array_record')}
  (kept / '00002-train.array_record.part').write_bytes(b'of a run that was killed')
  archive.write_bytes(whole)
  assert prepare(lame, output, '--workers', 1) == 1
  assert read_all(output) == read_all(prepared)
  assert done < {path.stat().st_ino for path in output.glob('*/*/*.array_record-*')}
  assert [path.name for path in sorted(output.iterdir())] == ['lock', 'nih_chest_xray14']
  assert prepare(lame, output) == 1  # they are there, and it says so again
  assert '16 images' in capsys.readouterr().out
  assert prepare(lame, output, '--seed', 1) == 2
  assert 'contains records of other images, tables or settings' in capsys.readouterr().err


@pytest.fixture
def two_patients(tmp_path):
  """Lay out a film of each of two patients, the second in the test list, and a cut archive."""
  folder = tmp_path / 'copy'
  folder.mkdir()
  names = ['00000001_000.png', '00000002_000.png', '00000001_001.png']
  write_table(folder, names)
  for i, name in enumerate(names[:2]):
    (folder / name).write_bytes(png(draw(i)))
  tar(folder / 'images_001.tar', [(names[2], png(draw(2)))], mode='w')
  write_lists(folder, test=2)
  return folder


def write_lists(folder, test):
  names = [f'0000000{patient}_00{i}.png' for patient, i in ((1, 0), (1, 1), (2, 0), (2, 1))]
  for kind in ('train_val', 'test'):
    some = [n for n in names if n.startswith(f'0000000{test}') == (kind == 'test')]
    (folder / f'{kind}_list.txt').write_text('\n'.join(some))


def swap_lists(folder):
  write_lists(folder, test=1)  # the same number of bytes


def change_film(folder):
  (folder / '00000001_000.png').write_bytes(png(draw(5)))


def change_age(folder):
  path = folder / 'Data_Entry_2017_v2020.csv'
  path.write_text(path.read_text().replace(',58,', ',59,'))


CHANGES = [swap_lists, change_film, change_age]


@pytest.mark.parametrize('change', CHANGES)
def test_a_copy_that_changed_is_refused(two_patients, tmp_path, change, capsys):
  """After an interruption, and after records were finished."""
  output, archive = tmp_path / 'records', two_patients / 'images_001.tar'
  whole = archive.read_bytes()
  archive.write_bytes(whole[:5000])
  assert prepare(two_patients, output, '--workers', 1) == 2
  archive.write_bytes(whole)  # as the message asks
  assert 'is damaged' in capsys.readouterr().err
  shutil.copytree(two_patients, tmp_path / 'kept')
  change(two_patients)
  assert prepare(two_patients, output, '--workers', 1) == 2
  error = capsys.readouterr().err
  assert 'changed after it was read; delete' in error or 'was begun with other images' in error
  assert error.count('\n') == 1 and not list(output.glob('nih_chest_xray14/*'))
  shutil.rmtree(*output.glob('.unfinished-*'))
  assert prepare(two_patients, output, '--workers', 1) == 0
  rows = {row.name: row for row in records.read_index(records.find(output))}
  assert (rows['00000001_000.png'].split == 'test') == (change is swap_lists)
  assert prepare(two_patients, output) == 0
  before = read_all(output)
  for path in (tmp_path / 'kept').iterdir():
    shutil.copy(path, two_patients)
  capsys.readouterr()
  assert prepare(two_patients, output) == 2
  assert 'contains records of other images, tables or settings; delete' in capsys.readouterr().err
  assert read_all(output) == before


def test_records_that_were_exchanged_are_noticed(two_patients, tmp_path, capsys):
  """Under the same path, with the same names, sizes and splits, but other pixels."""
  for i, name in enumerate(('records', 'other')):
    (two_patients / '00000002_000.png').write_bytes(png(draw(i)))
    tar(two_patients / 'images_001.tar', [('00000002_001.png', png(draw(i + 2)))], mode='w')
    assert prepare(two_patients, tmp_path / name, '--workers', 1) == 0
  before, now = (Records(tmp_path / name, 'test') for name in ('records', 'other'))
  assert fingerprint.of(before) == fingerprint.of(Records(tmp_path / 'records', 'test', channels=3))
  change = fingerprint.compare(fingerprint.of(before), fingerprint.of(now))
  assert change == 'the content of 00000002_000.png has changed'
  older = {k: v for k, v in fingerprint.of(before).items() if k != 'sample'}
  assert fingerprint.compare(older, fingerprint.of(now)) == ''
  measured = {name: Measured(None, content=fingerprint.of_image(before, 0)) for name in now.names}
  assert unfinished.of_same_images(measured, now) == {}
  options = ['evaluate', '--checkpoint=bicubic', f'--data={tmp_path / "records"}']
  options.append(f'--output={tmp_path / "results"}')
  assert cli.run([*options, '--shard=1/1']) == 0
  (tmp_path / 'records').rename(tmp_path / 'before')
  (tmp_path / 'other').rename(tmp_path / 'records')
  assert cli.run(options) == 2
  assert 'was measured on other images; delete it' in capsys.readouterr().err


def test_a_row_that_records_cannot_hold_is_named_before_any_work(two_patients, tmp_path, capsys):
  path = two_patients / 'Data_Entry_2017_v2020.csv'
  path.write_text(path.read_text().replace(',M,', ',U,', 1))
  assert prepare(two_patients, tmp_path / 'records', '--workers', 1) == 2
  error = capsys.readouterr().err
  assert error.startswith(f"error: {path}: line 2 does not fit this table (sex 'U' is not F or M)")
  assert 'Traceback' not in error
  assert not list(tmp_path.glob('records/.unfinished-*'))


def test_images_of_the_table_that_are_missing_are_counted(two_patients, tmp_path, capsys):
  write_table(two_patients, [f'0000000{i}_00{j}.png' for i in (1, 2) for j in (0, 1)])
  names = ('images/images_002.zip', '00000001_001.png')
  tar(two_patients / 'images_001.tar', [(name, b'x') for name in names], mode='w')
  assert prepare(two_patients, tmp_path / 'records', '--workers', 1, '--form', 'png') == 1
  error = capsys.readouterr().err
  assert f'note: 1 image of the table is not in {two_patients}: 00000002_001.png' in error
  assert 'left out: images_002.zip: is an archive in images_001.tar' in error


def test_a_list_that_changes_under_a_run_is_refused(two_patients, tmp_path, monkeypatch, capsys):
  def change_first(shard, plan):
    swap_lists(two_patients)
    write_shard(shard, plan)

  write_shard = shards.write_shard
  monkeypatch.setattr('jaxsr.data.nih.builder.write_shard', change_first)
  assert prepare(two_patients, tmp_path / 'records', '--workers', 1) == 2
  assert 'list.txt: changed while records were written; delete' in capsys.readouterr().err


def test_a_patient_in_two_splits_is_found(prepared, tmp_path, capsys):
  shutil.copytree(prepared, tmp_path / 'records')
  index = records.find(tmp_path / 'records') / records.INDEX
  assert run('inspect', tmp_path / 'records') == 0
  index.write_text(index.read_text().replace('test,00000001_001', 'train,00000001_001'))
  assert run('inspect', tmp_path / 'records') == 1
  assert '1 patient in two splits: 00000001' in capsys.readouterr().err
  rows = records.read_index(index.parent)
  with pytest.raises(UserError, match='00000001: patients in two splits; delete'):
    builder._check(Plan('data', (), 'records', Rule(), (), 'raw', 4), [rows], [])


def test_a_full_disk_is_seen_first(copy, tmp_path, monkeypatch, capsys):
  usage = shutil.disk_usage(tmp_path)._replace(free=10**6)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  assert prepare(copy, tmp_path, '--workers', 1) == 2
  assert 'GB, but 0.0 GB are free' in capsys.readouterr().err


def test_what_beam_does_not_know_is_a_line(copy, tmp_path, capsys):
  assert prepare(copy, tmp_path, '--runner', 'NoRunner') == 2
  assert '--runner NoRunner: Unexpected pipeline runner' in capsys.readouterr().err


def test_an_image_in_two_archives_is_refused(copy, tmp_path, capsys):
  double = tmp_path / 'copy'
  shutil.copytree(copy, double, ignore=shutil.ignore_patterns(*LOST))
  shutil.copy(double / 'images_002.tar.gz', double / 'images_003.tar.gz')
  assert prepare(double, tmp_path / 'records', '--workers', 1) == 2
  assert 'two archives contain 00000001_001.png' in capsys.readouterr().err


def test_without_the_tables_it_says_what_is_missing(copy, tmp_path, capsys):
  bare = tmp_path / 'copy'
  bare.mkdir()
  shutil.copy(copy / 'images_001.tar.gz', bare)
  assert prepare(bare, tmp_path / 'records') == 2
  assert 'download Data_Entry_2017_v2020.csv by hand' in capsys.readouterr().err
  shutil.copy(copy / 'Data_Entry_2017_v2020.csv', bare)
  assert prepare(bare, tmp_path / 'records', '--workers', 1) in (0, 1)
  assert 'NOT the published split' in capsys.readouterr().err


def test_a_damaged_record_is_named_and_left_out(prepared, tmp_path, capsys):
  shutil.copytree(prepared, tmp_path / 'records')
  shard = max(tmp_path.glob('records/*/*/*-train.array_record-*'), key=lambda p: p.stat().st_size)
  raw = bytearray(shard.read_bytes())
  raw[len(raw) // 3] ^= 1
  shard.write_bytes(raw)
  source = Records(tmp_path / 'records', 'train')
  broken = []
  for i in range(len(source)):
    try:
      source[i]
    except ImageError as error:
      broken.append((source.names[i], str(error)))
  assert len(broken) == 1 and f'{broken[0][0]}: its record is damaged' in broken[0][1]
  assert run('inspect', tmp_path / 'records', '--read') == 1
  films = Films(source, scale=4, capacity=0)
  capsys.readouterr()
  for i in range(len(films)):
    films[i]
  assert capsys.readouterr().err == f'left out of training: {broken[0][1]}\n'


def test_a_source_travels_to_other_processes(prepared):
  source = Records(prepared, 'test')
  source[0]
  again = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(again[1], source[1])


def test_batches_of_records_are_those_of_a_folder(copy, prepared, tmp_path):
  source = Records(prepared, 'train')
  for i, name in enumerate(source.names):
    Image.fromarray(source[i][..., 0]).save(tmp_path / name)
  windows = Windows(seed=1, patch=8, margin=3, by_error=0.5)
  both = [
    pipeline.batches(Films(s, scale=4, capacity=0), windows, batch_size=4)
    for s in (source, sources.Folder(tmp_path))
  ]
  for i in (0, 3):
    for name in both[0][i]:
      np.testing.assert_array_equal(both[0][i][name], both[1][i][name])


def test_evaluate_breaks_figures_down(prepared, tmp_path, capsys):
  arguments = ['--checkpoint', 'bicubic', '--data', prepared, '--split', 'test']
  with pytest.raises(SystemExit) as exit:
    cli.main(['evaluate', *map(str, arguments), '--output', str(tmp_path)])
  assert exit.value.code == 0
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert summary['strata']['finding'].keys() == {'Mass', 'No Finding', 'Pneumonia'}
  assert summary['strata']['all']['all']['n'] == summary['n'] == 4
  assert 'No Finding' in capsys.readouterr().out
  assert (tmp_path / 'strata.csv').read_text().count('\n') == 1 + 7


def test_records_pair_with_low_resolutions_of_a_folder(prepared, tmp_path):
  """The folder holds those of all splits; breakdowns by finding remain."""
  (tmp_path / 'lr').mkdir()
  for split in ('train', 'validation', 'test'):
    source = Records(prepared, split)
    for i, name in enumerate(source.names):
      image_files.write(tmp_path / 'lr' / name, 255 - degradation.downscale(source[i], 4))
  config = configs.copy(configs.base())
  config.data.update(train='nih', train_lr=str(tmp_path / 'lr'), records=str(prepared), patch=8)
  paired, source = sources.training(config), Records(prepared, 'train')
  assert paired.names == source.names and not paired.rejected
  film = Films(paired, scale=4, capacity=2**30)[1]
  np.testing.assert_array_equal(film.hr, source[1])
  np.testing.assert_array_equal(film.lr, 255 - degradation.downscale(source[1], 4))
  assert fingerprint.of(paired)['low_resolution']['images'] == 16
  arguments = ['--checkpoint', 'bicubic', '--data', prepared, '--split', 'test']
  with pytest.raises(SystemExit) as exit:
    cli.main(
      ['evaluate', *map(str, arguments), '--lr', f'{tmp_path}/lr', '--output', f'{tmp_path}/eval']
    )
  assert exit.value.code == 0
  summary = json.loads((tmp_path / 'eval' / 'summary.json').read_text())
  assert summary['n'] == 4 and 'Mass' in summary['strata']['finding']
  assert summary['psnr'] < 20  # of inverted films


def test_a_short_flag_stands_for_two():
  flags = ['--config.data=nih', '--config.steps=3', '--config.data.records=DIR']
  config = override(configs.base(), flags)
  assert (config.data.train, config.data.val, config.data.records) == ('nih', 'nih', 'DIR')


def test_records_must_be_named(tmp_path):
  config = override(configs.load('configs/quickstart.py:smoke'), ['--config.data=nih/test'])
  with pytest.raises(UserError, match='config.data.train=nih/test needs config.data.records'):
    train(config, tmp_path)


@pytest.mark.slow
def test_training_streams_records(prepared, tmp_path):
  flags = ['--config=configs/quickstart.py:smoke', '--config.data=nih', f'--workdir={tmp_path}']
  flags += [f'--config.data.records={prepared}', '--config.data.cache=none', '--config.steps=4']
  found = subprocess.run(
    [sys.executable, 'main.py', *flags], capture_output=True, text=True, timeout=300, cwd=ROOT
  )
  assert found.returncode == 0, found.stderr
  assert '8 images to train on, 2 to validate' in found.stdout


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def command(copy, output, workers):
  arguments = ['data', 'prepare', 'nih', copy, '--output', output, '--validation', 0.3]
  return [sys.executable, '-m', 'jaxsr', *map(str, [*arguments, '--workers', workers])]


@pytest.mark.slow
def test_two_workers_write_what_one_does(copy, prepared, tmp_path):
  assert subprocess.run(command(copy, tmp_path, 2), timeout=300).returncode == 1
  assert files_of(tmp_path) == files_of(prepared) != {}
  assert records.read_index(records.find(tmp_path)) == records.read_index(records.find(prepared))


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(copy, prepared, tmp_path, monkeypatch):
  """Killed again and again, with everything it has started, each time later, until it ends."""
  for kill in range(20):
    process = subprocess.Popen(command(copy, tmp_path, 1), start_new_session=True)
    try:
      process.wait(timeout=2.0 * 1.4**kill)
      break
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
  assert kill > 0 and process.returncode == 1
  assert files_of(tmp_path) == files_of(prepared) != {}
  left = [path.name for path in tmp_path.iterdir()]
  assert sorted(left) == ['lock', 'nih_chest_xray14']


@pytest.mark.slow
def test_a_dask_cluster_writes_the_same_and_survives_a_killed_worker(copy, prepared, tmp_path):
  pytest.importorskip('distributed', reason="needs pip install 'jaxsr-xray[dask]'")
  address = f'tcp://127.0.0.1:{free_port()}'

  def start(module, *arguments):
    return subprocess.Popen(
      [sys.executable, '-m', f'distributed.cli.{module}', *arguments, '--no-dashboard'],
      cwd=ROOT,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )

  cluster = [start('dask_scheduler', '--host', '127.0.0.1', '--port', address.rpartition(':')[2])]
  worker = ('dask_worker', address, '--nthreads', '1', '--no-nanny')
  cluster += [start(*worker) for _ in range(2)]
  options = ['--runner', 'DaskRunner', '--beam', f'dask_client_address={address}']
  try:
    process = subprocess.Popen([*command(copy, tmp_path, 1), *options])
    while not list(tmp_path.rglob('*.json')) and process.poll() is None:  # until a shard is done
      time.sleep(0.2)
    cluster[1].kill()
    assert process.wait(timeout=300) == 1  # some images are damaged
  finally:
    for each in cluster:
      each.kill()
      each.wait()
  assert files_of(tmp_path) == files_of(prepared) != {}
