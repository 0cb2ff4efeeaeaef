"""`jaxsr models`."""

import pytest

from jaxsr import analysis, cli, models

NAMES = ('bicubic', 'srcnn', 'vdsr')
NARROW = '--config.model.features=8'


def jaxsr(*arguments):
  """Run the console command; return its exit code."""
  with pytest.raises(SystemExit) as caught:
    cli.main(['models', *map(str, arguments)])
  return caught.value.code


@pytest.fixture
def show(capsys):
  """Run the command; return the words of its lines."""

  def run(*arguments):
    assert jaxsr(*arguments) == 0
    streams = capsys.readouterr()
    assert streams.err == ''
    return [line.split() for line in streams.out.splitlines()]

  return run


@pytest.fixture
def refused(capsys):
  """Run the command, which must refuse in one line; return that."""

  def run(*arguments):
    assert jaxsr(*arguments) == 2
    streams = capsys.readouterr()
    (line,) = streams.err.splitlines()
    assert streams.out == '' and line.startswith('error: ')
    return line

  return run


def total(lines):
  """Find the network's costs: the row below the heads of columns."""
  heads = next(i for i, line in enumerate(lines) if line[:1] == ['parameters'])
  name, parameters, gmacs, radius, *memory = lines[heads + 1]
  return int(parameters.replace(',', '')), float(gmacs.replace(',', '')), radius, ' '.join(memory)


def test_a_network_is_shown_with_its_layers_and_totals(show):
  lines = show('srcnn')
  assert lines[0] == ['256x256', '->', '1024x1024,', 'one', 'image']
  assert lines[1] == ['layer', 'output', 'parameters', 'GMACs']
  assert lines[2] == ['SRCNN', '1024x1024x1', '57,281', '59.962']
  assert lines[3] == ['conv_0', '1024x1024x64', '5,248', f'{1024**2 * 81 * 64 / 1e9:.3f}']
  assert lines[4][:3] == ['conv_1', '1024x1024x32', '51,232']
  assert lines[5] == ['conv_2', '1024x1024x1', '801', '0.839']
  memory = analysis.measure(models.build('srcnn', scale=4)).memory
  assert total(lines) == (57_281, 59.96, '4', f'{memory / 2**20:.0f} MiB')


def test_repeated_blocks_share_a_line(show):
  lines = [' '.join(line) for line in show('edsr', NARROW)]
  (block,) = (line for line in lines if line.startswith('block_'))
  assert block.startswith('block_0 ... block_15, each 256x256x8 1,168 ')
  assert 'conv_0 ... conv_1, each 256x256x8 584 0.038' in lines
  assert sum(line.startswith('conv_') for line in lines) == 3  # two: of the upsampler


def test_what_is_not_alike_does_not_share(show):
  lines = [line[0] for line in show('rdn', '--config.model.blocks=2', '--config.model.layers=3')]
  assert lines.count('block_0') == 1 and 'block_1' not in lines
  for name in ('conv_0', 'conv_1', 'conv_2', 'head_0', 'head_1', 'fusion_0', 'fusion_1'):
    assert name in lines


def test_inner_layers_are_indented(capsys):
  jaxsr('edsr', NARROW)
  lines = capsys.readouterr().out.splitlines()
  assert '  head ' in [line[:7] for line in lines]
  assert '    conv_0 ... conv_1, each ' in [line[:28] for line in lines]


def test_width_depth_scale_and_channels(show):
  half = total(show('edsr', '--width', 0.5, '--depth', 0.25, '--scale', 2, '--channels', 3))
  network = models.build('edsr', {'features': 32, 'blocks': 4}, scale=2, channels=3)
  expected = analysis.measure(network)
  assert half[0] == expected.parameters
  assert half[1] == pytest.approx(expected.macs / 1e9, abs=0.005)
  assert half[2] == str(expected.radius)


def test_options_of_the_network_and_the_config(show):
  assert total(show('vdsr', NARROW))[0] == (1 + 1) * 72 + 18 * 8 * 72 + 19 * 8 + 1
  full, half = (total(show('edsr', NARROW, f'--config.precision={p}')) for p in models.PRECISIONS)
  assert full[:3] == half[:3] and int(half[3][:-4]) < int(full[3][:-4])


def test_the_head_tells_the_scale_that_a_config_sets(show):
  lines = show('edsr', NARROW, '--config.scale=2')
  assert lines[0] == ['512x512', '->', '1024x1024,', 'one', 'image']


def test_attention_sees_the_whole_image(show):
  options = ('--config.model.groups=1', '--config.model.blocks=1')
  lines = [' '.join(line) for line in show('rcan', NARROW, *options)]
  assert any(line.startswith('rcan ') and ' whole image ' in line for line in lines)


def test_without_a_name_all_are_listed(show, monkeypatch):
  monkeypatch.setattr(models, 'MODELS', {name: models.MODELS[name] for name in NAMES})
  lines = show('--scale', 2, '--width', 0.25, '--depth', 0.25)
  assert lines[0][:3] == ['512x512', '->', '1024x1024,']
  assert lines[1] == ['network', 'parameters', 'GMACs', 'radius', 'activations']
  rows = {line[0]: line[1:] for line in lines[2 : 2 + len(NAMES)]}
  assert tuple(rows) == NAMES
  assert rows['bicubic'][:3] == ['0', '0.00', '2']
  for name in NAMES[1:]:
    found = analysis.measure(models.build(name, {'width': 0.25, 'depth': 0.25}, scale=2))
    expected = [f'{found.parameters:,}', f'{found.macs / 1e9:,.2f}', str(found.radius)]
    assert rows[name][:3] == expected


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (('edsrr',), "network 'edsrr' is unknown: did you mean 'edsr'?"),
    (('edsr', '--config.model.featurs=8'), "did you mean 'features'"),
    (('edsr', '--config.model.features=many'), 'config.model.features=many: must be a number'),
    (('edsr', '--config.model.upsampler=x'), "'x' is not one of 'shuffle', 'direct'"),
    (('swinir', '--config.model.heads=7'), 'features=180 is not a multiple of heads=7'),
    (('edsr', '--config.precision=half'), "precision 'half' is unknown"),
    (('edsr', '--width', 1.5), 'width 1.5 is not in (0, 1]'),
    (('edsr', '--depth', 0), 'depth 0.0 is not in (0, 1]'),
    (('bicubic', '--width', 0.5), "network 'bicubic' has no option 'width': it has no options"),
    (('back_projection', '--config.model.iterations=0'), 'iterations 0 is less than 1'),
    (('--config.scale=2',), '--config.scale=2: name the network as well'),
  ],
)
def test_what_is_wrong_is_said_in_one_line(refused, arguments, message):
  assert message in refused(*arguments)


def test_an_option_of_the_command_that_is_misspelt_names_the_nearest(capsys):
  assert jaxsr('edsr', '--widht', 0.5) == 2
  assert '--width' in capsys.readouterr().err


@pytest.mark.parametrize(
  'command',
  [
    ('upscale', 'a.png', '--checkpoint', 'bicubic', '--output', '{folder}/out'),
    ('evaluate', '--checkpoint', 'bicubic', '--data', 'a.png', '--output', '{folder}/out'),
    ('phantom', '--output', '{folder}/out'),
  ],
)
def test_a_command_without_a_config_refuses_one(tmp_path, capsys, command):
  arguments = [each.format(folder=tmp_path) for each in command]
  with pytest.raises(SystemExit) as caught:
    cli.main([*arguments, '--config.scale=2'])
  assert caught.value.code == 2
  expected = f'error: --config.scale=2: `jaxsr {command[0]}` has no config\n'
  assert capsys.readouterr().err == expected
  assert not list(tmp_path.iterdir())
