"""Rules of the whole package: layers, docstrings, options, and what an import costs."""

import ast
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

import jaxsr

PACKAGE = Path(jaxsr.__file__).resolve().parent

# What each folder or top-level module may import, from the ground up; each line may only name what
# stands above it, so that there can be no cycle.
ALLOWED = {
  'errors': '',
  'runtime': '',
  'files': 'errors runtime',
  'metrics': '',
  'ops': '',
  'sharding': 'errors ops',
  'models': 'errors ops',
  'analysis': 'models ops',
  'interop': 'errors models ops',
  'compression': 'analysis errors models',
  'perceptual': 'errors files models',
  'data': 'errors files runtime sharding',
  'losses': 'data errors metrics',
  'config': 'data errors losses metrics models perceptual',
  'checkpoint': 'config data errors files runtime',
  'inference': 'analysis checkpoint compression config data errors files models sharding',
  'export': 'analysis compression data errors files inference ops perceptual',
  'evaluation': 'data errors files inference metrics models perceptual runtime',
  'training': (
    'checkpoint compression config data errors evaluation files inference losses models '
    'perceptual runtime sharding'
  ),
  'trust': 'data errors evaluation files inference',
  'study': 'analysis checkpoint config data errors evaluation files inference runtime training',
  'commands': (
    'analysis checkpoint compression config data errors evaluation export files inference '
    'interop models runtime study training trust'
  ),
  'cli': 'commands errors runtime',
  '__main__': 'cli',
}


def modules():
  """Map each module's name to its file."""
  found = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = ('jaxsr', *path.relative_to(PACKAGE).with_suffix('').parts)
    found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return found


class _Runtime(ast.NodeTransformer):
  """Drops what only type checkers read."""

  def visit_If(self, node):
    is_for_types = isinstance(node.test, ast.Name) and node.test.id == 'TYPE_CHECKING'
    return None if is_for_types else self.generic_visit(node)


def imports():
  """Map each module to the modules of the package that it imports, inside functions as well."""
  files = modules()
  found = defaultdict(set)
  for name, path in files.items():
    for node in ast.walk(_Runtime().visit(ast.parse(path.read_text(encoding='utf-8')))):
      if isinstance(node, ast.Import):
        found[name] |= {alias.name for alias in node.names if alias.name in files}
      elif isinstance(node, ast.ImportFrom):
        assert not node.level, f'{name}: imports are absolute'
        for alias in node.names:
          full = f'{node.module}.{alias.name}'
          target = full if full in files else node.module
          if target in files:
            found[name].add(target)
  return {name: sorted(found[name] - {name}) for name in files}


def box(module):
  """Return the folder or top-level module that a module lies in."""
  return module.split('.')[1] if '.' in module else 'jaxsr'


def arrows():
  """Map each pair of boxes, of which the first imports the second, to the imports."""
  found = defaultdict(list)
  for name, targets in imports().items():
    for target in targets:
      if box(name) != box(target) and box(target) != 'jaxsr':
        found[box(name), box(target)].append(f'{name} -> {target}')
  return dict(found)


def cycle(graph):
  """Return a cycle of a graph as a path, or nothing."""
  state = {}

  def visit(node, path):
    state[node] = 'open'
    for after in graph.get(node, ()):
      if state.get(after) == 'open':
        return [*path[path.index(after) :], after]
      if after not in state and (found := visit(after, [*path, after])):
        return found
    state[node] = 'done'
    return []

  for node in graph:
    if node not in state and (found := visit(node, [node])):
      return found
  return []


def test_the_table_has_no_cycle():
  above = set()
  for name, allowed in ALLOWED.items():
    assert set(allowed.split()) <= above, f'{name} may import what stands below it'
    above.add(name)


def test_the_table_knows_each_folder():
  found = {box(name) for name in modules()} - {'jaxsr'}
  assert found == set(ALLOWED)


def test_folders_import_what_the_table_allows():
  found = arrows()
  wrong = {
    pair: lines for pair, lines in found.items() if pair[1] not in ALLOWED.get(pair[0], '').split()
  }
  unused = [
    f'{one} -> {other}'
    for one, allowed in ALLOWED.items()
    for other in allowed.split()
    if (one, other) not in found
  ]
  count = f'{len(ALLOWED)} folders and top-level modules, {len(found)} arrows between them'
  assert not wrong, f'{count}; not allowed:\n' + '\n'.join(
    line for lines in wrong.values() for line in lines
  )
  assert not unused, f'{count}; allowed, but not used: {", ".join(unused)}'
  assert len(found) <= 108, f'{count}: more would be hard to know'
  assert len(list(PACKAGE.glob('*.py'))) <= 12


def test_modules_do_not_import_each_other_in_circles():
  found = cycle(imports())
  assert not found, ' -> '.join(found)


def public(tree, prefix=''):
  """Yield the public functions, methods and classes of a module, with their dotted names."""
  for node in tree.body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith('_'):
      yield f'{prefix}{node.name}', node
      if isinstance(node, ast.ClassDef):
        yield from public(node, f'{prefix}{node.name}.')


def is_declaration(node):
  """Whether a function only declares a member of a protocol: its body is `...`."""
  (first, *rest) = node.body
  value = getattr(first, 'value', None)
  return not rest and isinstance(value, ast.Constant) and value.value is ...


def public_members():
  """Yield every public member of the package with its full name."""
  for module, path in modules().items():
    for name, node in public(ast.parse(path.read_text(encoding='utf-8'))):
      if not is_declaration(node):
        yield f'{module}.{name}', node


def test_public_functions_and_classes_have_docstrings():
  missing = [name for name, node in public_members() if not ast.get_docstring(node)]
  assert not missing, ', '.join(missing)


def test_modules_have_docstrings():
  texts = {name: path.read_text(encoding='utf-8') for name, path in modules().items()}
  missing = [
    n for n, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))
  ]
  assert not missing, ', '.join(missing)


def test_many_options_are_keyword_only():
  """More than two options of a public function may not be passed by position."""
  functions = [(n, node) for n, node in public_members() if isinstance(node, ast.FunctionDef)]
  wrong = [name for name, node in functions if len(node.args.defaults) > 2]
  assert len(functions) > 100 and not wrong, ', '.join(wrong)


HEAVY = (
  *('absl', 'flax', 'grain', 'jax', 'jaxlib', 'jaxtyping', 'matplotlib', 'ml_collections', 'numpy'),
  *('optax', 'orbax', 'PIL', 'pydicom', 'safetensors', 'scipy', 'tensorboard', 'tqdm'),
)


SELDOM = ('optax', 'orbax.checkpoint', 'pydicom', 'scipy.ndimage', 'scipy.sparse', 'tensorboard')


@pytest.mark.parametrize(
  ('code', 'absent'),
  [
    ('import jaxsr', HEAVY),
    ('import jaxsr.cli', HEAVY),
    ('from jaxsr import cli; cli.run(["upscale", "--help"])', HEAVY),
    ('import jaxsr.commands.upscale', SELDOM),
  ],
)
def test_importing_and_help_load_nothing_heavy(code, absent):
  """This keeps imports, help and `jaxsr upscale` fast, whatever the machine is doing."""
  lines = (
    'import sys',
    f'try: exec({code!r})',
    'except SystemExit: pass',
    f'print([name for name in {absent!r} if name in sys.modules])',
  )
  done = subprocess.run(
    [sys.executable, '-c', '\n'.join(lines)],
    capture_output=True,
    text=True,
    cwd=PACKAGE.parent,
    env={**os.environ, 'PYTHONPATH': str(PACKAGE.parent)},
  )
  assert done.stdout.splitlines()[-1] == '[]', done.stdout + done.stderr
