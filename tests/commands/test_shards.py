"""Several processes share the images of a folder; one of them is killed and started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from flax import traverse_util
from safetensors.numpy import save_file

from jaxsr import cli, files, perceptual
from jaxsr.data import fingerprint, image_files, shard
from jaxsr.data.phantom import phantom
from jaxsr.errors import UserError
from jaxsr.evaluation import report, shards, unfinished
from jaxsr.perceptual import weights

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def films(tmp_path):
  """Eleven small films, one of them damaged, in two folders."""
  for i in range(11):
    image_files.write(
      tmp_path / 'films' / str(i % 2) / f'{i}.png', phantom(5, i, size=64)[..., None]
    )
  (tmp_path / 'films' / 'bad.png').write_bytes(b'x')
  return tmp_path / 'films'


@pytest.fixture(autouse=True)
def folders(tmp_path):
  for name in ('0', '1'):
    (tmp_path / 'films' / name).mkdir(parents=True)


def test_each_image_is_in_one_part():
  names = [f'{i:08d}_000.png' for i in range(1000)]
  parts = [shard.Shard(i, 4) for i in (1, 2, 3, 4)]
  found = [[part.holds(name) for part in parts] for name in names]
  assert all(sum(row) == 1 for row in found)
  assert all(200 < sum(column) < 300 for column in zip(*found, strict=True))


@pytest.mark.parametrize(
  ('text', 'variables', 'expected'),
  [
    ('2/4', {}, (2, 4)),
    ('slurm', {'SLURM_PROCID': '1', 'SLURM_NTASKS': '4'}, (2, 4)),
    (
      'slurm',
      {'SLURM_ARRAY_TASK_ID': '7', 'SLURM_ARRAY_TASK_MIN': '5', 'SLURM_ARRAY_TASK_COUNT': '4'},
      (3, 4),
    ),
  ],
)
def test_a_part_is_given_or_read_from_slurm(text, variables, expected):
  assert shard.parse(text, variables) == expected


@pytest.mark.parametrize('text', ['0/4', '5/4', '1', 'a/b', '1/0', '-1/4', 'slurm'])
def test_what_is_no_part_is_refused(text):
  with pytest.raises(UserError, match='--shard'):
    shard.parse(text, {})


@pytest.mark.parametrize('name', ['SLURM_PROCID', 'SLURM_NTASKS'])
def test_variables_that_are_no_numbers_are_named(name):
  variables = {'SLURM_PROCID': '1', 'SLURM_NTASKS': '4', name: 'x'}
  with pytest.raises(UserError, match=f'--shard slurm: .*{name}=x'):
    shard.parse('slurm', variables)


@pytest.mark.parametrize(
  ('name', 'text'),
  [
    ('1_of_2.json', '{"options": {}, "images": {"a.png": {"row": null, "other": 1}}}'),
    ('1_of_2.json', '{"options": {}, "images": []}'),
    ('1_of_2.json', '[' * 100_000),
    ('1_of_2 (copy).json', '{"options": {}, "images": {}}'),
  ],
)
def test_a_damaged_part_is_named(tmp_path, name, text):
  (tmp_path / 'shards').mkdir()
  (tmp_path / 'shards' / name).write_text(text)
  with pytest.raises(UserError, match='is not a part of an evaluation; delete it'):
    shards.read(tmp_path, {})


ROW = {name: 1.0 for name in shards.needed()} | {'file': 'a.png', 'ms_ssim': None}
BAD_ROWS = [
  {},
  [1.0],
  {name: value for name, value in ROW.items() if name != 'psnr'},
  ROW | {'psnr': '31,5'},
  ROW | {'psnr': None},
  ROW | {'ms_ssim': float('nan')},
  ROW | {'mse': 10**400},
]
BAD_ROW_NAMES = ['empty', 'list', 'missing', 'text', 'none', 'NaN', 'huge', 'null']


@pytest.mark.parametrize('row', [*BAD_ROWS, None], ids=BAD_ROW_NAMES)
def test_a_row_that_is_not_whole_is_refused_or_measured_again(tmp_path, row):
  of = unfinished.Unfinished(tmp_path, {})._of
  lines = [[of, 'a.png', row, [], ''], [of, 'b.png', ROW, [], ''], [of, ['c.png'], ROW, [], '']]
  lines += [[of, 'd.png', ROW, None, ''], [of, 'e.png', ROW, [{}], '']]
  lines = [[*fields, files.digest_json(fields)] for fields in lines]
  (tmp_path / unfinished.FILE).write_text('\n'.join(map(json.dumps, lines)))
  assert list(unfinished.Unfinished(tmp_path, {}).found) == ['b.png']
  whole = {'row': ROW, 'sum': shards._sum('b.png', shards.Measured(ROW))}
  images = {'a.png': {'row': row}, 'b.png': whole}
  (tmp_path / 'shards').mkdir()
  part = tmp_path / 'shards' / '1_of_1.json'
  part.write_text(json.dumps({'options': {}, 'images': images}))
  with pytest.raises(UserError, match='1_of_1.json: is not a part of an evaluation; delete it'):
    shards.read(tmp_path, {})
  part.write_text(json.dumps({'options': {}, 'images': {'b.png': images['b.png']}}))
  assert list(shards.read(tmp_path, {})) == ['b.png']


def test_an_image_that_changed_after_its_part_is_measured_again(films, tmp_path, monkeypatch):
  """Its size and name are as before, and it is not in the sample of a large folder."""
  monkeypatch.setattr(fingerprint, 'ALL', 0)
  monkeypatch.setattr(fingerprint, 'SAMPLE', 2)
  for path in films.rglob('*.png'):
    if path.name != 'bad.png':
      image_files.write(path.with_suffix('.tif'), image_files.read(path))
    path.unlink()
  evaluate(films, tmp_path / 'parts', '--shard=1/1')
  image_files.write(films / '0' / '2.tif', phantom(6, 0, size=64)[..., None])
  assert evaluate(films, tmp_path / 'parts') == evaluate(films, tmp_path / 'whole') == 0
  tables = [(tmp_path / name / 'per_image.csv').read_text() for name in ('parts', 'whole')]
  assert tables[0] == tables[1]


def evaluate(films, output, *more):
  arguments = ['evaluate', '--checkpoint=bicubic', f'--data={films}', f'--output={output}']
  return cli.run([*arguments, *more])


def test_the_parts_of_an_evaluation_are_merged_exactly(films, tmp_path, capsys):
  assert evaluate(films, tmp_path / 'whole') == 1  # one image is damaged
  for part in ('1/3', '3/3'):
    evaluate(films, tmp_path / 'parts', f'--shard={part}')
  assert not (tmp_path / 'parts' / 'summary.json').exists()
  capsys.readouterr()
  assert evaluate(films, tmp_path / 'parts') == 1
  assert '1 part missing' in capsys.readouterr().err
  for name in ('summary.json', 'per_image.csv'):
    assert (tmp_path / 'parts' / name).read_text() == (tmp_path / 'whole' / name).read_text()
  image_files.write(films / '0' / '0.png', phantom(6, 0, size=64)[..., None])
  assert evaluate(films, tmp_path / 'parts') == 2
  assert 'was measured on other images; delete it' in capsys.readouterr().err


def test_parts_are_not_mixed_with_other_options(films, tmp_path, capsys):
  evaluate(films, tmp_path / 'parts', '--shard=1/2')
  assert evaluate(films, tmp_path / 'parts', '--ensemble') == 2
  assert 'was measured with ensemble False, not True; delete it' in capsys.readouterr().err


def write_boxes(folder, x):
  folder.mkdir()
  head = 'Image Index,Finding Label,Bbox [x,y,w,h]\n'
  (folder / 'BBox_List_2017.csv').write_text(f'{head}0.png,Mass,{x},4,32,32\n')


def test_parts_are_not_mixed_with_other_boxes(films, tmp_path, capsys):
  """Nor with none, on either side; and the same boxes in another folder are the same."""
  (films / 'bad.png').unlink()
  for name, x in (('a', 1), ('b', 20), ('c', 1)):
    write_boxes(tmp_path / name, x)
  tables = {name: f'--tables={tmp_path / name}' for name in 'abc'}
  evaluate(films, tmp_path / 'parts', '--shard=1/1', tables['a'])
  for other in ([tables['b']], []):
    capsys.readouterr()
    assert evaluate(films, tmp_path / 'parts', *other) == 2
    assert 'measured with the boxes of other --tables; delete it' in capsys.readouterr().err
  assert evaluate(films, tmp_path / 'parts', tables['c']) == 0
  assert evaluate(films, tmp_path / 'whole', tables['a']) == 0
  for name in ('regions.csv', 'summary.json'):
    assert (tmp_path / 'parts' / name).read_text() == (tmp_path / 'whole' / name).read_text()


def test_figures_are_not_mixed_with_other_feature_weights(films, tmp_path, monkeypatch, capsys):
  """Neither those of parts, nor those of an evaluation that was interrupted."""
  (films / 'bad.png').unlink()
  layer = perceptual.LAYERS['vgg16'][0]
  for seed in (1, 2):
    rng, found = np.random.default_rng(seed), {}
    for path, x in traverse_util.flatten_dict(weights.shapes('vgg16', layer)).items():
      value = rng.normal(0, 0.1, x.shape).astype(np.float32)
      module = weights.NAMINGS['vgg16'][0].module('/'.join(path[1:-1]))
      kernel = path[-1] == 'kernel'
      value = np.ascontiguousarray(value.transpose(3, 2, 0, 1) if kernel else value)
      found[f'{module}.{"weight" if kernel else path[-1]}'] = value
    save_file(found, tmp_path / f'{seed}.safetensors')
  features = ['--features=vgg16', f'--feature-layer={layer}']
  first, second = (f'--feature-weights={tmp_path / name}.safetensors' for name in '12')
  evaluate(films, tmp_path / 'parts', *features, first, '--shard=1/1')
  assert evaluate(films, tmp_path / 'parts', *features, second) == 2
  assert 'was measured with other --feature-weights; delete it' in capsys.readouterr().err
  with monkeypatch.context() as patch:
    patch.setattr(report, 'write', lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      evaluate(films, tmp_path / 'stopped', *features, first)
  assert evaluate(films, tmp_path / 'stopped', *features, second) == 0
  assert evaluate(films, tmp_path / 'whole', *features, second) == 0
  tables = [(tmp_path / name / 'per_image.csv').read_text() for name in ('stopped', 'whole')]
  assert tables[0] == tables[1]


def start(*arguments):
  environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
  command = [sys.executable, '-m', 'jaxsr', *map(str, arguments)]
  return subprocess.Popen(
    command,
    env={**environment, 'PYTHONPATH': str(ROOT), 'JAX_NUM_CPU_DEVICES': '1'},
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


@pytest.mark.slow
def test_four_processes_upscale_a_folder_and_one_is_killed(films, tmp_path):
  output = tmp_path / 'large'
  command = ['upscale', films, '--checkpoint=edsr_x4_tiny', f'--output={output}']
  processes = [start(*command, f'--shard={i}/4') for i in (1, 2, 3, 4)]
  time.sleep(3)
  processes[0].send_signal(signal.SIGKILL)
  for process in processes:
    process.wait(timeout=300)
  start(*command, '--shard=1/4').wait(timeout=300)
  found = sorted(str(path.relative_to(output)) for path in output.rglob('*') if path.is_file())
  assert found == sorted(f'{i % 2}/{i}.png' for i in range(11))
  for path in output.rglob('*.png'):
    assert image_files.read(path).shape == (256, 256, 1)


@pytest.mark.slow
def test_four_processes_evaluate_a_folder_and_one_is_killed(films, tmp_path):
  command = ['evaluate', '--checkpoint=edsr_x4_tiny', f'--data={films}']
  processes = [
    start(*command, f'--output={tmp_path / "a"}', f'--shard={i}/4') for i in (1, 2, 3, 4)
  ]
  time.sleep(3)
  processes[2].send_signal(signal.SIGKILL)
  for process in processes:
    process.wait(timeout=300)
  assert len(list((tmp_path / 'a' / 'shards').iterdir())) >= 3
  start(*command, f'--output={tmp_path / "a"}', '--shard=3/4').wait(timeout=300)
  for name in ('a', 'b'):  # the second one without parts
    start(*command, f'--output={tmp_path / name}').wait(timeout=300)
  tables = [json.loads((tmp_path / name / 'summary.json').read_text()) for name in ('a', 'b')]
  assert tables[0] == tables[1]
