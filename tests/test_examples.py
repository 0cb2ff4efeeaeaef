"""The example notebook runs from a clean process, and its stored outputs are small."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = json.loads((ROOT / 'examples' / 'quickstart.ipynb').read_text(encoding='utf-8'))
CELLS = [cell for cell in NOTEBOOK['cells'] if cell['cell_type'] == 'code']


def test_the_notebook_trains_a_network_that_beats_bicubic(tmp_path):
  code = '\n\n'.join(''.join(cell['source']) for cell in CELLS)
  paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
  environment = os.environ | {'MPLBACKEND': 'agg', 'PYTHONPATH': os.pathsep.join(paths)}
  environment |= {'TMPDIR': str(tmp_path), 'XLA_FLAGS': ''}  # an optimized program trains faster
  found = subprocess.run(
    [sys.executable, '-c', f'{code}\n\nprint(psnr(sr) - psnr(bicubic))'],
    cwd=tmp_path,
    env=environment,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert found.returncode == 0, found.stderr
  assert float(found.stdout.splitlines()[-1]) > 0.5


def test_the_notebook_stores_the_outputs_of_one_complete_run():
  assert [cell['execution_count'] for cell in CELLS] == list(range(1, len(CELLS) + 1))
  kinds = [output['output_type'] for cell in CELLS for output in cell['outputs']]
  assert kinds == ['stream', 'stream', 'display_data']
  assert (ROOT / 'examples' / 'quickstart.ipynb').stat().st_size < 100_000
