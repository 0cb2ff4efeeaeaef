"""Deal patients out to train, validation and test; no patient is ever in two of them.

With the publisher's lists, the test split is theirs, and validation is cut from their other list by
patient. Without them all three are. Whether a patient is cut depends on the seed and the patient
alone, not on which images are there.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxsr.errors import UserError

SPLITS = ('train', 'validation', 'test')


class Rule(NamedTuple):
  """How patients are dealt out; shares are of patients.

  The publisher's test list holds 9 % of the patients, and 23 % of the images; `test` counts only
  without it.
  """

  seed: int = 0
  validation: float = 0.05
  test: float = 0.1

  def describe(self, lists: bool) -> str:
    """Say in a sentence how patients were dealt out."""
    cut = f'seed {self.seed}'
    if lists:
      return (
        "test is the publisher's test_list.txt; validation is "
        f'{self.validation:.1%} of the patients of train_val_list.txt, {cut}'
      )
    return (
      'NOT the published split, whose lists are not here: by patient, '
      f'{self.test:.1%} test and {self.validation:.1%} validation, {cut}'
    )


def check(rule: Rule) -> None:
  """Raise UserError where shares are none, or leave nobody to train on."""
  if rule.validation < 0 or rule.test < 0 or rule.validation + rule.test >= 1:
    shares = f'--validation {rule.validation} and --test {rule.test}'
    raise UserError(f'{shares} must not be negative, and must be less than 1 together')


def patient_id(name: str) -> str:
  """Tell whose film an image is by its name."""
  return name[:8]


def assign(
  names: Iterable[str], lists: Mapping[str, Sequence[str]] | None, rule: Rule
) -> dict[str, str]:
  """Give the split of each image; images that are in neither list are left out.

  `lists` are the names in `train_val` and `test`. Raises UserError where the lists share a patient.
  """
  if lists is None:
    return {name: _draw_split(patient_id(name), rule) for name in names}
  tested = set(lists['test'])
  known = tested | set(lists['train_val'])
  if both := {patient_id(n) for n in tested} & {patient_id(n) for n in lists['train_val']}:
    raise UserError(
      f'the lists share {len(both)} patients, as {min(both)}: they are not the published ones'
    )
  whole = rule._replace(test=0.0)
  return {
    name: 'test' if name in tested else _draw_split(patient_id(name), whole)
    for name in names
    if name in known
  }


def _draw_split(patient: str, rule: Rule) -> str:
  place = _uniform(rule.seed, patient)
  if place < rule.validation:
    return 'validation'
  return 'test' if place < rule.validation + rule.test else 'train'


def _uniform(seed: int, patient: str) -> float:
  """Draw a number in [0, 1) that a seed and a patient determine."""
  drawn = hashlib.sha256(f'{seed}/{patient}'.encode()).digest()
  return int.from_bytes(drawn[:7], 'big') / 2**56
