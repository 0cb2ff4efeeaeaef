"""The documents agree with the code: links, files, commands, settings and Python snippets."""

import ast
import json
import re
import shlex
import tomllib
from itertools import chain
from pathlib import Path

import pytest

import jaxsr
from jaxsr import cli, config, models
from jaxsr.config.overrides import override
from jaxsr.data.phantom import phantom
from jaxsr.evaluation import figures
from jaxsr.inference.model import Model
from jaxsr.losses import TERMS

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
  path.relative_to(ROOT).as_posix()
  for path in chain(
    ROOT.glob('*.md'),
    ROOT.glob('docs/**/*.md'),
    (ROOT / 'benchmarks/README.md', ROOT / 'checkpoints/README.md'),
  )
)
PACKAGES = sorted(path.parent.name for path in ROOT.glob('checkpoints/*/metrics.json'))
BLOCK = re.compile(r'^```(\w*)\n(.*?)^```', re.DOTALL | re.MULTILINE)
INLINE = re.compile(r'`([^`]+)`')
LINK = re.compile(r'\]\(([^)\s]+)\)')
FILE = re.compile(r'(?:[\w.-]+/)+[\w.-]*\.(?:py|md|json|cff|safetensors)|[A-Z]+\.md')
OPTION = re.compile(r'^--([a-z][a-z0-9-]*)\b')
SETTING = re.compile(r'^(?:(?:--)?config\.)?([a-z]\w*(?:\.\w+)*)(?:=.*)?$')
SUFFIXES = ('csv', 'html', 'json', 'md', 'png', 'py', 'safetensors')
# Placeholders that stand for numbers or folders.
PLACEHOLDERS = {'=N': '=2', '=I': '=0', ' N': ' 2', '{workdir}': 'runs/study'}
WRITTEN = ('runs', 'eval', 'large', 'images/', 'phantoms', '~')  # what commands write


def read(name):
  return (ROOT / name).read_text(encoding='utf-8')


def blocks(name, language):
  return [text for found, text in BLOCK.findall(read(name)) if found == language]


def inline(name):
  """Return the inline code of a document, outside its blocks."""
  return [' '.join(code.split()) for code in INLINE.findall(BLOCK.sub('', read(name)))]


def commands(name):
  """Return the complete commands of a document: the lines of its blocks without a language."""
  text = '\n'.join(blocks(name, '')).replace('\\\n', ' ')
  parts = chain.from_iterable(line.split('&&') for line in text.splitlines())
  return [' '.join(part.split()) for part in parts if part.strip()]


def words(command):
  """Split a command like a shell, without comments and variables in front of it."""
  for found, value in PLACEHOLDERS.items():
    command = re.sub(
      rf'{re.escape(found)}\b' if found[-1].isalpha() else re.escape(found), value, command
    )
  split = shlex.split(command.partition(' > ')[0], comments=True)
  while split and re.fullmatch(r'[A-Z_]+=\S+', split[0]):
    split = split[1:]
  return split


def slug(heading):
  """Return the anchor that GitHub gives to a heading."""
  return re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')


def anchors(path):
  text = re.sub(BLOCK, '', path.read_text(encoding='utf-8'))
  return {slug(line.lstrip('#').strip()) for line in text.splitlines() if line.startswith('#')}


def all_settings():
  """Return a config with the options of every network and of the studies."""
  found = config.copy(config.load('compress'))
  for name in models.MODELS:
    for key, value in config.network(name).items():
      if key not in found.model:
        found.model[key] = value
  return found


def parameters(module):
  """Return the options of a command of `benchmarks`, from its source."""
  found = set()
  for node in ast.walk(ast.parse(read(module))):
    if isinstance(node, ast.arg):
      found.add(node.arg)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
      found.add(node.target.id)
    elif isinstance(node, ast.Constant) and str(node.value).startswith('--'):
      found.add(str(node.value)[2:].replace('-', '_'))
  return found


def test_readme_is_short():
  assert len(read('README.md').split()) <= 1000


def test_architecture_is_short():
  assert len(read('ARCHITECTURE.md').splitlines()) <= 60


@pytest.mark.parametrize('name', DOCUMENTS)
def test_links_lead_somewhere(name):
  wrong = []
  for target in LINK.findall(BLOCK.sub('', read(name))):
    if re.match(r'[a-z]+:', target):
      continue
    place, _, anchor = target.partition('#')
    path = (ROOT / name).parent / place if place else ROOT / name
    if not path.exists() or (anchor and anchor not in anchors(path)):
      wrong.append(target)
  assert not wrong, f'{name} links to {wrong}, which do not exist'


@pytest.mark.parametrize('name', DOCUMENTS)
def test_files_exist(name):
  wrong = []
  for code in inline(name):
    if FILE.fullmatch(code) and not code.startswith(WRITTEN) and 'NAME' not in code:
      folders = (ROOT, ROOT / 'jaxsr', (ROOT / name).parent)
      if not any((folder / code).exists() for folder in folders):
        wrong.append(code)
  assert not wrong, f'{name} names {wrong}, which do not exist'


def test_sources_name_existing_documents():
  folders = ('benchmarks', 'configs', 'jaxsr', 'tests')
  for path in chain.from_iterable((ROOT / folder).rglob('*.py') for folder in folders):
    for found in re.findall(r'docs/[\w/]+\.md', path.read_text(encoding='utf-8')):
      assert (ROOT / found).is_file(), f'{path} names {found}, which does not exist'


@pytest.mark.parametrize('name', DOCUMENTS)
def test_pictures_have_a_description(name):
  assert '![](' not in read(name)


@pytest.mark.parametrize('name', DOCUMENTS)
def test_commands_are_understood(name):
  """Every command in a block is parsed by the parser that users call."""
  extras = tomllib.loads(read('pyproject.toml'))['project']['optional-dependencies']
  for command in commands(name):
    split = words(command)
    if not split:
      continue
    try:
      if split[0] == 'jaxsr':
        parse(split[1:])
      elif split[:2] == ['python', '-m'] and split[2].split('.')[0] == 'benchmarks':
        parse_benchmark(split)
    except (Exception, SystemExit) as error:
      raise AssertionError(f'{name}: {command}\n{error}') from error
    for extra in re.findall(r'\.\[([a-z,]+)\]', command):
      assert set(extra.split(',')) <= set(extras), f'{name}: {command}'


def parse(arguments):
  """Parse the arguments of `jaxsr`; settings are applied to the config that is named."""
  if arguments[0] in ('--version', '--tyro-print-completion'):
    with pytest.raises(SystemExit) as stopped:
      cli.main(arguments)
    assert not stopped.value.code
    return
  _, command = cli._parse(arguments)
  overrides = getattr(command, 'overrides', ())
  if overrides:
    experiment = getattr(command, 'config', None)
    override(config.load(experiment) if experiment else all_settings(), overrides)
  elif getattr(command, 'config', None):
    config.load(command.config)


def parse_benchmark(split):
  module = split[2].replace('.', '/')
  path = next(p for p in (f'{module}.py', f'{module}/__main__.py') if (ROOT / p).is_file())
  options = [o[1].replace('-', '_') for o in map(OPTION.match, split[3:]) if o]
  known = parameters(path) | {'help'}
  assert set(options) <= known, f'{sorted(set(options) - known)} are no options of {split[2]}'


def help_text(command, capsys):
  with pytest.raises(SystemExit):
    cli._parse([*command, '--help'])
  return capsys.readouterr().out


@pytest.mark.parametrize('name', DOCUMENTS)
def test_options_in_sentences_exist(name, capsys):
  """`jaxsr COMMAND --option` in a sentence names an option of that command; `--option` of any."""
  actions = ('download', 'verify', 'prepare', 'inspect')
  known = {(key,): help_text([key], capsys) for key in cli.COMMANDS}
  known |= {('data', action): help_text(['data', action], capsys) for action in actions}
  everything = '\n'.join(known.values()) + ''.join(
    f'--{option}\n'.replace('_', '-')
    for path in ROOT.glob('benchmarks/**/*.py')
    for option in parameters(path.relative_to(ROOT).as_posix())
  )
  everything += '\n'.join(re.findall(r"'(--[\w-]+)'", (ROOT / 'tests' / 'faults.py').read_text()))
  for code in inline(name):
    if not (code.startswith('jaxsr ') or code.startswith('--')):
      continue
    if code.startswith(('--config.', '--xla')) or code == 'jaxsr --version':
      continue
    split = code.split()
    text = everything
    if split[0] == 'jaxsr':
      command = next(
        key for key in sorted(known, key=len, reverse=True) if tuple(split[1:][: len(key)]) == key
      )
      text = known[command]
    for option in (found[1] for found in map(OPTION.match, split) if found):
      if not option.startswith('config'):
        assert re.search(rf'--{option}\b', text), f'{name}: `{code}` has no option --{option}'


@pytest.mark.parametrize('name', DOCUMENTS)
def test_settings_in_sentences_exist(name):
  """`data.cache`, `config.start.NAME` or `--config.steps=20` is a setting that a config has."""
  settings = all_settings()
  for word in chain.from_iterable(code.split() for code in inline(name)):
    found = SETTING.match(word)
    keys = found[1].split('.') if found else []
    explicit = word.startswith(('config.', '--config.'))
    if not keys or keys[-1] in SUFFIXES or keys[-1] in ('KEY', 'base'):
      continue
    if not explicit and (len(keys) < 2 or keys[0] not in settings):
      continue
    if keys[0] == 'model' and keys[1] in (*dir(Model), *Model.__annotations__):
      continue  # an attribute of what `jaxsr.load` returns
    here = settings
    for key in keys:
      key = next(iter(here)) if key == 'NAME' else key
      assert key in here, f'{name}: `{word}` is no setting, {key!r} is unknown'
      here = here[key]


@pytest.mark.parametrize('package', PACKAGES)
def test_the_tables_of_models_hold_the_packages_metrics(package):
  """Numbers of the README and docs/models.md are those of the package's metrics.json."""
  metrics = json.loads(read(f'checkpoints/{package}/metrics.json'))
  psnr, ssim, center, ssim_center = (
    f'{metrics[name]:.{digits}f}'
    for name, digits in (('psnr', 3), ('ssim', 4), ('psnr_centre', 3), ('ssim_centre', 4))
  )
  count = re.search(r'([\d,]+) parameters', read(f'checkpoints/{package}/README.md'))
  assert count
  rows = [cells(line) for line in read('docs/models.md').splitlines() if f'`{package}`' in line]
  first, other = (row for row in rows if row[0] == f'`{package}`')
  assert first[1] == count[1] and first[-4:] == [psnr, ssim, center, ssim_center]
  names = ('psnr_pooled', 'psnr_uncropped', 'ms_ssim', 'high_frequency')
  assert other[1:5] == [f'{metrics[n]:.{d}f}' for n, d in zip(names, (3, 3, 4, 3), strict=True)]
  assert other[6:] == [f'{metrics["consistency"]:.2f}', str(metrics['images_below_bicubic'])]
  for line in read('README.md').splitlines():  # a selection of the models
    row = cells(line)
    if row[0].split(' (')[0] == f'`{package}`':
      assert row[1] == count[1] and row[3:] == [f'{psnr} / {center}', ssim]
  assert f'| `{package}` | {count[1]} |' in read('checkpoints/README.md')


def test_the_readme_shows_the_default_model():
  rows = [cells(line)[0] for line in read('README.md').splitlines()]
  assert '`edsr_x4` (default)' in rows and '`edsr_x4_robust`' in rows


def cells(line):
  return [cell.strip() for cell in line.strip().strip('|').split('|')]


def test_every_name_is_documented():
  """Each network, loss term and experiment stands in the page that lists them."""
  for name in models.MODELS:
    assert f'`{name}`' in read('docs/models.md'), f'add a row for {name} to docs/models.md'
  losses = read('docs/gan.md') + read('docs/distill.md')
  for name in TERMS:
    assert f'`{name}`' in losses, f'add a row for {name} to docs/gan.md or docs/distill.md'
  for name in figures.FIGURES:
    assert f'`{name}`' in read('docs/evaluate.md'), f'add a row for {name} to docs/evaluate.md'


SNIPPETS = [(name, i, text) for name in DOCUMENTS for i, text in enumerate(blocks(name, 'python'))]


@pytest.mark.parametrize(('name', 'number', 'text'), SNIPPETS)
def test_snippets_run(name, number, text, tmp_path, monkeypatch):
  """Python in documents compiles; it also runs if it needs nothing but jaxsr and an image."""
  code = compile(text, f'{name}, snippet {number}', 'exec')
  if 'import torch' in text or name == 'docs/export.md':
    return  # the latter need exported files: tests/export/test_onnx.py
  (tmp_path / 'images').mkdir()
  for target in ('chest.png', 'images/a.png'):
    jaxsr.write(tmp_path / target, phantom(0, 0, size=64))
  if 'chest.dcm' in text:
    pytest.importorskip('pydicom', reason="DICOM needs pip install 'jaxsr-xray[dicom]'")
    from data.dicom_films import build, ramp, save

    save(tmp_path / 'chest.dcm', build(ramp()))
  monkeypatch.chdir(tmp_path)
  exec(code, {})
  if 'chest_x4.png' in text:
    assert jaxsr.read(tmp_path / 'chest_x4.png').shape == (256, 256)
