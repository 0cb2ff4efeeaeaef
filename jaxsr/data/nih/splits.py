"""Assign patients to train, validation and test, so that no patient is in two splits.

With the publisher's lists, the test split is the published one, and validation is drawn by patient
from the other list. Without the lists, all three splits are drawn by patient. The split of a
patient depends only on the seed and the patient, not on which images are present.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxsr.errors import UserError

SPLITS = ('train', 'validation', 'test')


class Rule(NamedTuple):
  """How patients are assigned: the seed, and the shares of patients in validation and test.

  `test` is used only without the publisher's test list, which has 9 % of the patients and 23 % of
  the images.
  """

  seed: int = 0
  validation: float = 0.05
  test: float = 0.1

  def describe(self, lists: bool) -> str:
    """Returns a sentence that describes the splits."""
    cut = f'seed {self.seed}'
    if lists:
      return (
        "test is the publisher's test_list.txt; validation is "
        f'{self.validation:.1%} of the patients of train_val_list.txt, {cut}'
      )
    return (
      'NOT the published split, whose lists are missing: by patient, '
      f'{self.test:.1%} test and {self.validation:.1%} validation, {cut}'
    )


def check(rule: Rule) -> None:
  """Raise UserError if a share is negative, or if no patient is left to train on."""
  if rule.validation < 0 or rule.test < 0 or rule.validation + rule.test >= 1:
    shares = f'--validation {rule.validation} and --test {rule.test}'
    raise UserError(f'{shares} must not be negative, and their sum must be less than 1')


def patient_id(name: str) -> str:
  """Returns the patient of an image, the first eight digits of its name."""
  return name[:8]


def assign(
  names: Iterable[str], lists: Mapping[str, Sequence[str]] | None, rule: Rule
) -> dict[str, str]:
  """Returns the split of each image; images in neither list are omitted.

  Args:
    names: Image names.
    lists: The published lists `train_val` and `test`, or None if they are missing.
    rule: The seed and the shares.

  Raises:
    UserError: If a patient is in both lists.
  """
  if lists is None:
    return {name: _draw_split(patient_id(name), rule) for name in names}
  tested = set(lists['test'])
  known = tested | set(lists['train_val'])
  if both := {patient_id(n) for n in tested} & {patient_id(n) for n in lists['train_val']}:
    raise UserError(
      f'the lists share {len(both)} patients, for example {min(both)}; download the published lists'
    )
  without_test = rule._replace(test=0.0)
  return {
    name: 'test' if name in tested else _draw_split(patient_id(name), without_test)
    for name in names
    if name in known
  }


def _draw_split(patient: str, rule: Rule) -> str:
  place = _uniform(rule.seed, patient)
  if place < rule.validation:
    return 'validation'
  return 'test' if place < rule.validation + rule.test else 'train'


def _uniform(seed: int, patient: str) -> float:
  """Returns a number in [0, 1) that depends only on the seed and the patient."""
  drawn = hashlib.sha256(f'{seed}/{patient}'.encode()).digest()
  return int.from_bytes(drawn[:7], 'big') / 2**56
