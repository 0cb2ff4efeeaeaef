"""PSNR lost in exported models, by the type that kernels are stored in.

python -m benchmarks.precision --data NIH/val --output runs/precision --models edsr_x4 edsr_x4_small

Each film is reduced as the protocol reduces it, upscaled by JAX and by the ONNX files in
onnxruntime, and rounded to its gray levels. Figures are appended film by film to
OUTPUT/films.jsonl; the same command continues after the last one. The table counts the pixels that
differ from those of JAX.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import tyro

from jaxsr import metrics
from jaxsr.data import degradation, image_files
from jaxsr.export import exportable, onnx_file
from jaxsr.files import make_folder
from jaxsr.inference.model import Model, load


def main(
  data: Path,
  output: Path,
  models: tuple[str, ...] = ('edsr_x4',),
  precisions: tuple[str, ...] = exportable.PRECISIONS,
  films: int = 0,
  threads: int = 1,
) -> None:
  """Measure models (0: on all films) with this number of onnxruntime threads, and print a table."""
  make_folder(output)
  paths = image_files.find(data)[: films or None]
  print('| Model | Precision | Size | Films | PSNR lost | Pixels that differ | Most levels |')
  print('|---|---|---|---|---|---|---|')
  for name in models:
    model = load(name)
    contents = {kind: _export(model, kind) for kind in precisions}
    rows = list(_measure(model, contents, paths, output / 'films.jsonl', threads))
    for kind, content in contents.items():
      chosen = [row for row in rows if row['precision'] == kind]
      lost, differ = (np.mean([row[key] for row in chosen]) for key in ('lost', 'differ'))
      size = f'{len(content) / 1000:,.0f} kB'
      line = f'| `{name}` | `{kind}` | {size} | {len(chosen)} | {lost:.4f} dB | {differ:.3%} '
      print(f'{line}| {max(row["most"] for row in chosen)} |', flush=True)


def _export(model: Model, precision: str) -> bytes:
  return onnx_file.serialize(exportable.prepare(model, precision=precision))[0]


def _measure(
  model: Model, contents: dict[str, bytes], paths: list[Path], records: Path, threads: int
) -> Iterator[dict[str, Any]]:
  """Yields the figures of each film and precision, read from `records` or computed."""
  lines = records.read_text(encoding='utf-8').splitlines() if records.exists() else []
  known = {(row['sha256'], row['film']): row for row in map(json.loads, lines)}
  digests = {kind: hashlib.sha256(content).hexdigest() for kind, content in contents.items()}
  sessions = {kind: _session(content, threads) for kind, content in contents.items()}
  for path in paths:
    missing = [kind for kind in contents if (digests[kind], path.name) not in known]
    found = _compare(model, {kind: sessions[kind] for kind in missing}, path) if missing else {}
    with records.open('a', encoding='utf-8') as file:
      for kind, figures in found.items():
        facts = {'model': model.name, 'precision': kind, 'sha256': digests[kind]}
        known[digests[kind], path.name] = facts | {'film': path.name} | figures
        file.write(json.dumps(known[digests[kind], path.name]) + '\n')
    yield from (known[digest, path.name] for digest in digests.values())


def _session(content: bytes, threads: int) -> Callable[[np.ndarray], np.ndarray]:
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  session = onnxruntime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
  return lambda lr: np.asarray(session.run(['sr'], {'lr': lr})[0])


def _compare(
  model: Model, sessions: dict[str, Callable[[np.ndarray], np.ndarray]], path: Path
) -> dict[str, dict[str, Any]]:
  """Returns what each precision changes in a film."""
  hr = degradation.cut(image_files.load(path, model.channels)[0], model.scale)
  peak = np.iinfo(hr.dtype).max
  lr = degradation.downscale(hr, model.scale)[None] / np.float32(peak)
  psnr = lambda x: metrics.psnr(float(np.mean(((x - hr) / peak) ** 2)))  # noqa: E731
  levels = lambda sr: np.rint(peak * np.clip(sr[0], 0, 1).astype(np.float64))  # noqa: E731
  expected, found = levels(np.asarray(model(lr))), {}
  for kind, run in sessions.items():
    image = levels(run(lr))
    off = np.abs(image - expected)
    lost = psnr(expected) - psnr(image)
    found[kind] = {'lost': lost, 'differ': float(np.mean(off > 0)), 'most': int(off.max())}
  return found


if __name__ == '__main__':
  tyro.cli(main)
