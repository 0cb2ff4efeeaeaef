"""Options that several commands have, and the types of optional values."""

from pathlib import Path
from typing import Annotated, Literal

import tyro

OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar='PATH', help_behavior_hint='')]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar='TEXT', help_behavior_hint='')]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar='INT', help_behavior_hint='')]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar='FLOAT', help_behavior_hint='')]
Overrides = tyro.conf.Suppress[tuple[str, ...]]  # `--config.KEY=VALUE`, which `jaxsr.cli` fills in
DataSet = Annotated[Literal['nih'], tyro.conf.Positional]

_CHECKPOINT = (
  "A run's or a package's folder, a package's name, 'bicubic', 'lanczos' or 'back_projection' "
  '(default: the pretrained model for the scale).'
)
_SCALE = "2, 3, 4 or 8 (default: the model's own, or 4)."
Checkpoint = Annotated[
  str | None, tyro.conf.arg(metavar='TEXT', help=_CHECKPOINT, help_behavior_hint='')
]
Scale = Annotated[int | None, tyro.conf.arg(metavar='INT', help=_SCALE, help_behavior_hint='')]
Step = Annotated[str, tyro.conf.arg(help="The checkpoint of a run: 'latest', 'best' or a step.")]
Width = Annotated[float, tyro.conf.arg(help='A width that a slimmable network was trained at.')]
Depth = Annotated[float, tyro.conf.arg(help='A depth that a slimmable network was trained at.')]
Ensemble = Annotated[
  bool,
  tyro.conf.arg(help='Average over the eight flips and rotations, at eight times the cost.'),
]
Bits = Annotated[
  int, tyro.conf.arg(help='The bit depth of 16-bit files without a tag, such as 12; 0: trust them.')
]
Shard = Annotated[
  str,
  tyro.conf.arg(
    metavar='I/N',
    help='Only part I of N of the images, divided by the SHA-256 of their names; "slurm" reads I '
    'and N from the variables of a job array or of srun.',
  ),
]
_RUNTIME = (
  'A folder with the archives of `npm pack` for the libraries of the page '
  '(default: npm downloads them once).'
)
Runtime = Annotated[Path | None, tyro.conf.arg(metavar='DIR', help=_RUNTIME, help_behavior_hint='')]
Debug = Annotated[bool, tyro.conf.arg(help='Show the traceback of an error.')]
