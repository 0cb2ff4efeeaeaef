"""Figures that an evaluation continues from, damaged."""

import json
import re

import pytest

from jaxsr.data import shard
from jaxsr.errors import describe
from jaxsr.evaluation import shards, unfinished

ROW = {name: 1.0 for name in shards.needed()} | {'file': 'a.png', 'ms_ssim': None}


def flip_digits(path):
  """Yield a file's text with another digit in place of each digit of its figures."""
  text = path.read_text()
  for found in re.finditer(r'\d(?=\d*[,}\]\n])', text):
    digit = str((int(found[0]) + 1) % 10)
    yield text[: found.start()] + digit + text[found.end() :]


def test_another_digit_in_what_was_measured_is_not_silent(tmp_path, capsys):
  """As a flipped bit makes it, or an editor. Rows of earlier versions have no digest."""
  measured = shards.Measured(ROW | {'psnr': 31.25}, [], content='0' * 16)
  unfinished.Unfinished(tmp_path, {}).add('a.png', measured)
  shards.write(tmp_path, shard.Shard(1, 1), {}, {'a.png': measured})
  read = {
    unfinished.FILE: lambda: unfinished.Unfinished(tmp_path, {}).found,
    'shards/1_of_1.json': lambda: shards.read(tmp_path, {}),
  }
  for name, again in read.items():
    path = tmp_path / name
    whole = path.read_text()
    assert list(again()) == ['a.png']
    changed = list(flip_digits(path))
    assert len(changed) > 10
    for text in changed:
      path.write_text(text)
      assert not again(), f'{text} was silent'
    path.write_text(whole)
  assert '1_of_1.json: 1 image not as written; measured again' in capsys.readouterr().err
  part = json.loads(path.read_text())
  del part['images']['a.png']['sum']
  path.write_text(json.dumps(part))
  assert not shards.read(tmp_path, {})


def test_a_full_disk_under_figures_is_named(tmp_path):
  (tmp_path / unfinished.FILE).symlink_to('/dev/full')
  with pytest.raises(OSError, match='No space left') as error:
    unfinished.Unfinished(tmp_path, {}).add('a.png', shards.Measured(ROW))
  assert describe(error.value) == f'{tmp_path / unfinished.FILE}: No space left on device'
