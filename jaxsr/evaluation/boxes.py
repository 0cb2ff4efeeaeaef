"""Measure images inside the boxes that radiologists drew around findings."""

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
  """Measure an image inside each of its boxes; SSIM is the mean of the windows inside the box.

  Boxes are clipped to the image. A box smaller than the window of SSIM is left out.
  """
  hr = jnp.asarray(example.hr[None])
  maps = [np.asarray(_map(jnp.asarray(x[None]), hr)[0]) for x in (example.sr, example.bicubic)]
  return [row for box in boxes if (row := _inside(box, example, *maps)) is not None]


def _inside(
  box: Box, example: Example, sr_map: np.ndarray, bicubic_map: np.ndarray
) -> dict[str, Any] | None:
  """Average the errors and SSIM maps of the output and of bicubic over a box."""
  height, width, _ = example.hr.shape
  top, left = max(0, round(box.y)), max(0, round(box.x))
  bottom, right = min(height, round(box.y + box.height)), min(width, round(box.x + box.width))
  if min(bottom - top, right - left) < metrics.WINDOW:
    return None
  row: dict[str, Any] = {'file': box.name, 'finding': box.finding}
  row |= {'patient': splits.patient_id(box.name), 'x': left, 'y': top}
  row |= {'width': right - left, 'height': bottom - top}
  windows = np.s_[top : bottom - metrics.WINDOW + 1, left : right - metrics.WINDOW + 1]
  images = (('', example.sr, sr_map), ('bicubic_', example.bicubic, bicubic_map))
  for prefix, image, found in images:
    error = (image.astype(np.float64) - example.hr)[top:bottom, left:right]
    row[f'{prefix}psnr'] = metrics.psnr(float(np.square(error).mean()))
    row[f'{prefix}ssim'] = float(found[windows].mean())
  return row


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Average over the boxes of each finding, and over all."""
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
