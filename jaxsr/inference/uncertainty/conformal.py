"""Choose a factor or a threshold so that a loss, averaged over patients, is controlled.

The loss of each patient is between 0 and 1. `mean` brings the average over the given patients to
the target. `crc` is conformal risk control (Angelopoulos et al., Conformal Risk Control, ICLR
2024): the expected loss of a new patient is at most the target. `rcps` keeps the risk at or below
the target with a confidence of 90 % (Bates et al., Distribution-Free, Risk-Controlling Prediction
Sets, 2021), by the betting bound of Waudby-Smith and Ramdas.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from jaxsr.errors import UserError

RULES = ('mean', 'crc', 'rcps')
FAILURE = 0.1  # the probability that the bound of `rcps` fails


def check(rule: str, patients: int, target: float) -> None:
  """Raise UserError if a rule cannot be passed by any data of this number of patients."""
  if rule not in RULES:
    raise UserError(f'rule {rule!r}: choose one of {", ".join(RULES)}')
  if patients >= (needed := fewest(rule, target)):
    return
  why = ''
  if rule == 'rcps':
    chance = f'{1 - target:g}^{patients} = {(1 - target) ** patients:.2f}'
    why = f' ({chance} is more than {FAILURE:g})'
  raise UserError(
    f'rule {rule} needs at least {needed} patients in the half that chooses the factor, found '
    f'{patients}{why}; give films of more patients, or choose rule mean'
  )


def fewest(rule: str, target: float) -> int:
  """Returns the number of patients below which a rule accepts no data, even without any loss."""
  if rule == 'rcps':
    return int(np.ceil(np.log(FAILURE) / np.log(1 - target) - 1e-9))
  return int(np.ceil(1 / target - 1 - 1e-9)) if rule == 'crc' else 1


def accepts(rule: str, losses: Float[np.ndarray, ' n'], target: float) -> bool:
  """Whether a rule accepts the losses of the patients.

  Args:
    rule: one of `RULES`.
    losses: one value in [0, 1] per patient, in an order that does not depend on them.
    target: the mean loss to be controlled, such as 0.1.
  """
  if rule == 'mean':
    return bool(losses.mean() <= target)
  if rule == 'crc':
    return bool((losses.sum() + 1) / (len(losses) + 1) <= target)
  return _capital(losses, target) >= 1 / FAILURE


def _capital(losses: Float[np.ndarray, ' n'], target: float) -> float:
  """Returns the most that bets against a risk above the target have earned at any time.

  If the risk is above the target, this exceeds 1 / p with probability p at most. Bets depend on
  earlier patients only.
  """
  count = np.arange(1, len(losses) + 1)
  means = (0.5 + np.cumsum(losses)) / (1 + count)
  variances = (0.25 + np.cumsum(np.square(losses - means))) / (1 + count)
  before = np.concatenate([[0.25], variances[:-1]])
  bets = np.sqrt(2 * np.log(1 / FAILURE) / (len(losses) * before)).clip(max=1 / (1 - target))
  return float(np.cumprod(1 + bets * (target - losses)).max(initial=1.0))


def smallest(accepted: Callable[[float], bool], low: float, high: float) -> float:
  """Find by bisection the smallest value from which on values are accepted.

  Args:
    accepted: whether a value is accepted.
    low: where to begin; positive.
    high: a value that must be accepted.

  Raises:
    UserError: `high` is not accepted.
  """
  if not accepted(high):
    raise UserError(
      'the errors are too large and too different for this rule; give films of more patients, or '
      'choose rule mean'
    )
  for _ in range(50):
    middle = float(np.sqrt(low * high))
    low, high = (low, middle) if accepted(middle) else (middle, high)
  return high


def largest(accepted: Callable[[float], bool], low: float, high: float) -> float:
  """Find by bisection the largest value up to which values are accepted; see `smallest`.

  `low` must be accepted.
  """
  return 1 / smallest(lambda x: accepted(1 / x), 1 / high, 1 / low)
