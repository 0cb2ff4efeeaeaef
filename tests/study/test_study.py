"""The study: its plan, its table, its page, and that it continues where it was killed."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxsr import config as configs
from jaxsr import files, study
from jaxsr.config import to_dict
from jaxsr.errors import UserError
from jaxsr.study import page, table
from runs import pack

ROOT = Path(__file__).resolve().parents[2]
FLAGS = (
  '--config.study.widths=(0.5,)',
  '--config.study.depths=(1.0,)',
  '--config.steps=8',
  '--config.eval=4',
  '--config.save=2',
  '--config.log=1',
  '--config.data.phantom.size=128',
  '--config.data.patch=8',
  '--config.data.margin=2',
  '--config.study.objectives.affinity=teacher.checkpoint={teacher} loss.distill_affinity=0.1',
)


@pytest.fixture
def config():
  return configs.load(str(ROOT / 'configs' / 'compress.py') + ':smoke')


def command(workdir, *flags):
  base = [sys.executable, '-m', 'jaxsr', 'compress', '--config=configs/compress.py:smoke']
  return [*base, f'--workdir={workdir}', *FLAGS, *flags]


def run(workdir, *flags):
  done = subprocess.run(command(workdir, *flags), cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr + done.stdout
  return done.stdout


def read(workdir):
  """Read the table without timings."""
  with (workdir / 'study.csv').open(newline='') as file:
    return [{k: v for k, v in row.items() if k != 'cpu_ms'} for row in csv.DictReader(file)]


def test_plan_is_the_full_grid(config, tmp_path):
  config.study.update(widths=(0.5, 1.0), depths=(0.5,), seeds=(0, 1))
  teacher, trials = study.plan(config, tmp_path)
  assert teacher.config.model.width == 1.0 and 'study' not in teacher.config
  assert len(trials) == 2 * 1 * 2 * 4
  assert len({trial.name for trial in trials}) == len(trials)
  one = next(t for t in trials if t.name == 'w0.5_d0.5_sliced_s1')
  assert (one.config.model.width, one.config.model.depth, one.config.seed) == (0.5, 0.5, 1)
  assert one.config.init_from == one.config.teacher.checkpoint == str(tmp_path / 'teacher')
  untaught = next(t for t in trials if t.name == 'w0.5_d0.5_untaught_s1')
  assert not untaught.config.teacher.checkpoint
  assert untaught.config.steps == one.config.steps


def test_a_given_teacher_is_measured_and_not_trained(config, tmp_path):
  folder = str(pack(tmp_path / 'given', {'name': 'edsr', 'features': 12, 'blocks': 2}))
  config.teacher.checkpoint = folder
  teacher, trials = study.plan(config, tmp_path)
  assert (teacher.given, teacher.config.model.features) == (folder, 12)
  assert trials[-1].config.teacher.checkpoint == folder
  assert study.checkpoint_of(tmp_path, teacher) == folder


def test_a_wrong_objective_is_reported_with_its_trial(config, tmp_path):
  config.study.objectives.wrong = 'loss.distill_output=1'
  with pytest.raises(UserError, match=r'w0.5_d0.5_wrong_s0: distill_output needs a teacher'):
    study.plan(config, tmp_path)


def row(objective, psnr, **options):
  known = {'network': 'edsr', 'width': 0.5, 'depth': 1.0, 'objective': objective, 'seed': 0}
  known |= {'psnr': psnr, 'ssim': 0.9, 'psnr_centre': psnr, 'status': 'done', 'films': 2}
  known |= {'gmacs': 1.0, 'parameters': 100, 'cpu_ms': 5.0, 'films_below_bicubic': 0}
  return dict.fromkeys(table.COLUMNS) | known | options


def test_rows_worse_than_a_baseline_are_marked():
  rows = [
    row('good', 40.0, gain_bicubic=1.0, gain_untaught=0.5),
    row('blurred', 30.0, gain_bicubic=-3.0, gain_untaught=0.1),
    row('mistaught', 39.0, gain_bicubic=1.0, gain_untaught=-0.2),
    row('untaught', 39.2, gain_bicubic=1.2, gain_untaught=0.0),
  ]
  assert [table.faults(r) for r in rows] == [[], ['below bicubic'], ['below no teacher'], []]
  shown = page._table(table.group(rows)).rows
  assert [row.is_bad for row in shown] == [False, True, True, False]
  names = ('good', 'blurred', 'mistaught', 'untaught')
  assert all(row.cells[0].endswith(name) for row, name in zip(shown, names, strict=True))


def test_seeds_are_averaged_with_their_spread():
  rows = [row('sliced', 40.0 + i, seed=i, gain_untaught=0.1 * i) for i in range(3)]
  (found,) = table.group(rows)
  assert (found['psnr'], found['psnr_sd'], found['seeds']) == (41.0, 1.0, 3)
  assert found['gain_untaught'] == pytest.approx(0.1)


def test_front_holds_the_points_that_no_cheaper_one_beats():
  assert page._front([1.0, 2.0, 2.0, 3.0, 4.0], [5.0, 4.0, 6.0, 6.0, 7.0]) == [0, 2, 4]


def test_a_result_that_was_changed_is_named(config, tmp_path):
  _, (trial, *_) = study.plan(config, tmp_path)
  path = study.folder_of(tmp_path, trial) / study.RESULT
  path.parent.mkdir(parents=True)
  whole = {'summary': {'psnr': 40.25}, 'films': trial.films, 'config': to_dict(trial.config)}
  for found in (whole, whole | {'sum': files.digest_json(whole)}):
    files.write_json(path, found)
    assert study.result(tmp_path, trial) == whole
  path.write_text(path.read_text().replace('40.25', '40.35'))
  with pytest.raises(UserError, match=r'result.json: cannot be read .*not as it was.* delete it'):
    study.result(tmp_path, trial)


@pytest.mark.slow
def test_a_study_that_is_killed_gives_the_same_table(tmp_path):
  """Five runs that are killed with their child processes, against one that is not."""
  text = run(tmp_path / 'whole')
  assert '4/4' in text
  expected = read(tmp_path / 'whole')
  assert [r['status'] for r in expected] == ['done'] * 6
  killed = tmp_path / 'killed'
  for seconds in (9, 14, 19, 24, 29):
    process = subprocess.Popen(
      command(killed), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
  again = run(killed)
  assert read(killed) == expected
  assert 'error' not in again
  html = (killed / 'study.html').read_text()
  assert html.count('<svg') == 3 and 'viewport' in html and 'data:image/png' in html
  assert not re.search(r'(src|href)="(?!data:|#)', html)  # nothing from elsewhere
  before = os.stat(killed / 'trials').st_mtime
  assert 'w0.5' not in run(killed)  # nothing is trained again
  assert os.stat(killed / 'trials').st_mtime == before
  other = subprocess.run(
    command(killed, '--config.loss.mse=2.0'), cwd=ROOT, capture_output=True, text=True
  )
  assert other.returncode == 2 and 'config.loss.mse was 1.0, is now 2.0' in other.stderr
