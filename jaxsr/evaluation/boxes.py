"""Figures inside boxes: where a radiologist saw a finding."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import metrics
from jaxsr.data.nih import splits
from jaxsr.data.nih.metadata import Box
from jaxsr.evaluation import stratified
from jaxsr.evaluation.plots import Example

_map = jax.jit(metrics.ssim_map)


def measure(example: Example, boxes: Sequence[Box]) -> list[dict[str, Any]]:
  """Measure an image inside each of its boxes; SSIM over the windows that lie in the box.

  Boxes are cut to the image; one that is smaller than SSIM's window has no SSIM and is left out.
  """
  hr = jnp.asarray(example.hr[None])
  maps = [np.asarray(_map(jnp.asarray(x[None]), hr)[0]) for x in (example.sr, example.bicubic)]
  return [row for box in boxes if (row := _inside(box, example, *maps)) is not None]


def _inside(
  box: Box, example: Example, ours: np.ndarray, theirs: np.ndarray
) -> dict[str, Any] | None:
  """Average errors and SSIM maps, of the image and of bicubic, over a box."""
  height, width, _ = example.hr.shape
  top, left = max(0, round(box.y)), max(0, round(box.x))
  bottom, right = min(height, round(box.y + box.height)), min(width, round(box.x + box.width))
  if min(bottom - top, right - left) < metrics.WINDOW:
    return None
  row: dict[str, Any] = {'file': box.name, 'finding': box.finding}
  row |= {'patient': splits.patient_id(box.name), 'x': left, 'y': top}
  row |= {'width': right - left, 'height': bottom - top}
  windows = np.s_[top : bottom - metrics.WINDOW + 1, left : right - metrics.WINDOW + 1]
  for prefix, image, found in (('', example.sr, ours), ('bicubic_', example.bicubic, theirs)):
    error = (image.astype(np.float64) - example.hr)[top:bottom, left:right]
    row[f'{prefix}psnr'] = metrics.psnr(float(np.square(error).mean()))
    row[f'{prefix}ssim'] = float(found[windows].mean())
  return row


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Average boxes by finding, and all together."""
  groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
  for row in rows:
    groups[row['finding']].append(row)
    groups['all'].append(row)
  return {finding: stratified.figures(groups[finding]) for finding in sorted(groups)}


def by_image(boxes: Sequence[Box]) -> Mapping[str, list[Box]]:
  """Group boxes by the name of their image."""
  found: dict[str, list[Box]] = defaultdict(list)
  for box in boxes:
    found[Path(box.name).name].append(box)
  return found
