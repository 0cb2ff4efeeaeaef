"""The layers of the package: which folder may import which."""

import ast
from collections import defaultdict
from pathlib import Path

import jaxsr

PACKAGE = Path(jaxsr.__file__).resolve().parent

# What each folder or top-level module may import, from the ground up; each line may only name what
# stands above it, so that there can be no cycle.
ALLOWED = {
  'errors': '',
  'files': 'errors',
  'runtime': '',
  'metrics': '',
  'ops': '',
  'sharding': 'errors ops',
  'models': 'errors ops',
  'analysis': 'models ops',
  'interop': 'errors models',
  'compression': 'analysis errors models',
  'perceptual': 'errors files models',
  'data': 'errors files runtime sharding',
  'losses': 'data errors metrics',
  'config': 'data errors losses metrics models perceptual',
  'checkpoint': 'config errors files runtime',
  'inference': 'analysis checkpoint compression config data errors files metrics models sharding',
  'evaluation': 'data errors files inference losses metrics models perceptual runtime',
  'training': (
    'checkpoint compression config data errors evaluation files inference losses models '
    'perceptual sharding'
  ),
  'study': 'analysis checkpoint config data errors evaluation files inference runtime training',
  'commands': (
    'analysis checkpoint compression config data errors evaluation files inference interop models '
    'runtime study training'
  ),
  'cli': 'commands errors runtime',
}


def modules():
  """Map each module's name to its file."""
  found = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = ('jaxsr', *path.relative_to(PACKAGE).with_suffix('').parts)
    found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return found


def imports():
  """Map each module to the modules of the package that it imports, inside functions as well."""
  files = modules()
  found = defaultdict(set)
  for name, path in files.items():
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
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


def test_modules_do_not_import_each_other_in_circles():
  found = cycle(imports())
  assert not found, ' -> '.join(found)
