"""Divide images between processes, on one machine or on many.

An image belongs to the shard that the SHA-256 of its name decides, so that every process knows its
own images without asking the others, and an image stays where it is when others are added.
"""

import hashlib
import os
from collections.abc import Mapping
from typing import NamedTuple

from jaxsr.errors import UserError

SLURM = 'slurm'
# The number of this task, that of the first one, and how many there are: of an array, and of srun.
_VARIABLES = (
  ('SLURM_ARRAY_TASK_ID', 'SLURM_ARRAY_TASK_MIN', 'SLURM_ARRAY_TASK_COUNT'),
  ('SLURM_PROCID', '', 'SLURM_NTASKS'),
)


class Shard(NamedTuple):
  """Part `number` of `count`, counted from 1."""

  number: int
  count: int

  def __str__(self) -> str:
    return f'{self.number}/{self.count}'

  def holds(self, name: str) -> bool:
    """Whether an image belongs to the shard, by its name relative to its folder."""
    digest = hashlib.sha256(name.encode(errors='surrogateescape')).digest()
    return int.from_bytes(digest[:8], 'big') % self.count == self.number - 1


def parse(text: str, environment: Mapping[str, str] = os.environ) -> Shard:
  """Read the value of `--shard`.

  Args:
    text: I/N with I from 1 to N, or 'slurm' for the variables of a job array or of srun.
    environment: The variables.

  Returns:
    The shard.

  Raises:
    UserError: The text or the variables are not a shard.
  """
  if text == SLURM:
    return _of_slurm(environment)
  number, slash, count = text.partition('/')
  if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
    raise UserError(f'--shard {text}: must be I/N with I from 1 to N, such as 1/4, or {SLURM}')
  return Shard(int(number), int(count))


def _of_slurm(environment: Mapping[str, str]) -> Shard:
  for number, first, count in _VARIABLES:
    if number in environment and count in environment:
      try:
        place = int(environment[number]) - int(environment.get(first, 0)) + 1
        total = int(environment[count])
      except ValueError as error:
        text = f'--shard {SLURM}: {number}={environment[number]} of {count}={environment[count]}'
        raise UserError(f'{text} are not numbers; give I/N') from error
      if not 1 <= place <= total:
        raise UserError(f'--shard {SLURM}: {number} has gaps; use an array like 1-{total}')
      return Shard(place, total)
  raise UserError(f'--shard {SLURM}: neither {_VARIABLES[0][0]} nor {_VARIABLES[1][0]} is set')
