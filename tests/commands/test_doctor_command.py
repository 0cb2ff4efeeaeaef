"""`jaxsr doctor`, and what the distribution is made of."""

import importlib.metadata
import re
import shutil
import tomllib
from pathlib import Path

import pytest

import jaxsr
from jaxsr import cli, runtime
from jaxsr.commands import doctor
from jaxsr.inference import package

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']


@pytest.fixture
def examine(tmp_path, capsys):
  """Run the command; return its exit code and what it printed."""

  def run():
    with pytest.raises(SystemExit) as caught:
      cli.main(['doctor', '--output', str(tmp_path)])
    streams = capsys.readouterr()
    assert streams.err == ''
    return caught.value.code, streams.out

  return run


def test_a_sound_installation_passes(examine, tmp_path):
  code, shown = examine()
  assert code == 0, shown
  assert shown.endswith('all checks passed\n') and 'FAILED' not in shown
  for name in ('jax', 'jaxlib', 'flax', 'orbax-checkpoint', 'numpy'):
    assert f'  {name} {importlib.metadata.version(name)}\n' in shown
  assert f'jaxsr {jaxsr.__version__} in ' in shown
  for name in package.names():
    assert re.search(rf'  {name}: [0-9a-f]{{64}}\n', shown)
  assert f'{tmp_path} is writable' in shown
  assert not list(tmp_path.iterdir())


def test_damaged_weights_fail(examine, tmp_path, monkeypatch):
  copy = tmp_path / 'packages' / 'edsr_x4_tiny'
  shutil.copytree(ROOT / 'checkpoints' / 'edsr_x4_tiny', copy)
  whole = (copy / package.WEIGHTS).read_bytes()
  (copy / package.WEIGHTS).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  monkeypatch.setattr(package, '_folders', lambda: (copy.parent,))
  code, shown = examine()
  assert code == 1 and '1 check failed' in shown
  assert 'pretrained models: FAILED' in shown and f'{copy / package.WEIGHTS}: SHA-256 is' in shown


def test_no_weights_at_all_fail(examine, tmp_path, monkeypatch):
  monkeypatch.setattr(package, '_folders', lambda: (tmp_path,))
  code, shown = examine()
  assert code == 1 and 'no pretrained model found' in shown


class Installed(importlib.metadata.Distribution):
  """A distribution with a version and a summary."""

  def __init__(self, summary):
    self.summary = summary

  def read_text(self, filename):
    return f'Metadata-Version: 2.1\nName: jaxsr\nVersion: 9.9\nSummary: {self.summary}\n'

  def locate_file(self, path):
    return path


@pytest.mark.parametrize(
  ('summary', 'expected'),
  [('JAX-based Symbolic Regression', 1), (PROJECT['description'], 0)],
)
def test_the_other_project_of_that_name_fails(examine, monkeypatch, summary, expected):
  real = importlib.metadata.distribution

  def distribution(name):
    return Installed(summary) if name == 'jaxsr' else real(name)

  monkeypatch.setattr(importlib.metadata, 'distribution', distribution)
  code, shown = examine()
  assert code == expected
  assert ('pip uninstall jaxsr' in shown) == bool(expected)


def test_a_folder_that_cannot_be_written_fails(tmp_path, capsys):
  (tmp_path / 'file').touch()
  with pytest.raises(SystemExit) as caught:
    cli.main(['doctor', '--output', str(tmp_path / 'file')])
  assert caught.value.code == 1
  assert 'write test: FAILED' in capsys.readouterr().out


def test_a_missing_package_fails(examine, monkeypatch):
  monkeypatch.setattr(runtime, 'PACKAGES', (*runtime.PACKAGES, 'no-such-package'))
  code, shown = examine()
  assert code == 1 and 'no-such-package: not installed; run pip install' in shown


def test_a_missing_extra_is_named_and_no_failure(examine, monkeypatch):
  monkeypatch.setattr(doctor, 'EXTRAS', {'dicom': ('no_such_module',)})
  code, shown = examine()
  assert code == 0
  assert "dicom: missing no_such_module: pip install 'jaxsr-xray[dicom]'" in shown


def test_the_extras_and_the_name_are_those_of_the_project():
  assert PROJECT['name'] == doctor.DISTRIBUTION
  assert set(doctor.EXTRAS) <= set(PROJECT['optional-dependencies'])


def sources():
  """Return every text of the project that may tell a user what to install."""
  found = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'main.py']
  for folder, pattern in (('jaxsr', '*.py'), ('docs', '*.md'), ('configs', '*.py')):
    found += sorted((ROOT / folder).rglob(pattern))
  return found


def test_every_hint_names_this_distribution_and_an_existing_extra():
  """`pip install jaxsr` would install the other project."""
  hints = 0
  for path in sources():
    text = path.read_text(encoding='utf-8')
    assert not re.search(r'pip install (-U )?[\'"]?jaxsr(?!-xray)\b', text), path
    for name, extras in re.findall(r'[\'"](jaxsr-xray|\.)\[([a-z,]+)\]', text):
      hints += 1
      assert set(extras.split(',')) <= set(PROJECT['optional-dependencies']), (path, name)
  assert hints > 3


@pytest.mark.parametrize('name', ['Dockerfile', 'Dockerfile.cuda'])
def test_dockerfiles_install_existing_extras_from_files_that_exist(name):
  text = (ROOT / name).read_text()
  (extras,) = re.findall(r"pip install --no-cache-dir '/tmp/jaxsr\[([a-z,]+)\]'", text)
  assert set(extras.split(',')) <= set(PROJECT['optional-dependencies'])
  assert ('cuda' in extras.split(',')) == name.endswith('.cuda')
  kept = re.findall(r'^!(.+)$', (ROOT / '.dockerignore').read_text(), re.MULTILINE)
  assert {'jaxsr', 'checkpoints', 'configs', 'pyproject.toml', 'README.md'} <= set(kept)
  assert all((ROOT / each).exists() for each in kept)
  assert 'ENTRYPOINT ["jaxsr"]' in text


def test_the_citation_has_the_version_and_license_of_the_project():
  text = (ROOT / 'CITATION.cff').read_text()
  assert f'\nversion: {jaxsr.__version__}\n' in text
  assert f'\nlicense: {PROJECT["license"]}\n' in text
