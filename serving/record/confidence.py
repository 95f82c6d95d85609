"""Which of two versions has the larger mean return: an answer that holds at any time.

A test whose sample size is not fixed beforehand must not be one of those that assume it: whoever
looks after every episode finds a difference between equal versions sooner or later. A confidence
sequence covers the difference at all times at once.
"""

from collections import deque
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

DoubleArray = npt.NDArray[np.float64]
Answer = Literal["better", "worse", "not yet known"]

CONFIDENCE = 0.95
# Shares of the capital that are bet: small differences are found by small bets.
BETS = 0.9 * 0.5 ** np.arange(6)
# Log-capital that disproves a difference; one half of the error rate is for each side.
DISPROOF = float(np.log(2 / (1 - CONFIDENCE)))
_MIN_PAIRS = 10  # from which their growth says anything about those to come
_BISECTIONS = 40


class Difference(NamedTuple):
    """The challenger's mean return minus the champion's, in units of return.

    Attributes:
        answer: whether the interval is above, below or around 0.
        low, high: the interval, which only gets narrower.
        more_episodes: a rough estimate of how many would bring an answer other than "not yet
            known"; None where there is one, and where none is in sight.
    """

    answer: Answer
    low: float
    high: float
    more_episodes: int | None


def difference(
    is_challenger: Sequence[bool], returns: Sequence[float], bounds: tuple[float, float]
) -> Difference:
    """Compare the mean returns of two versions by the episodes so far.

    Args:
        is_challenger: which version decided in each episode `[E]`.
        returns: of the episodes `[E]`, in an order that does not depend on them.
        bounds: the lowest and the highest possible return.
    """
    low, high = bounds
    pairs = paired_differences(is_challenger, returns) / (high - low)
    # Scaled to [0, 1]: 1/2 is no difference.
    unit = (pairs + 1) / 2
    below, above = _lower_limit(unit), 1 - _lower_limit(1 - unit)
    # A limit is disproved itself, so one of exactly 1/2 is an answer.
    answer: Answer = "better" if below >= 0.5 else "worse" if above <= 0.5 else "not yet known"
    more = _more_pairs(unit) if answer == "not yet known" else None
    return Difference(
        answer,
        (high - low) * (2 * below - 1),
        (high - low) * (2 * above - 1),
        None if more is None else int(np.ceil(more * len(returns) / len(unit))),
    )


def paired_differences(is_challenger: Sequence[bool], returns: Sequence[float]) -> DoubleArray:
    """Differences `[P]`, challenger minus champion, each of returns that no other one has.

    A pair is made as soon as both versions have returns that wait. It takes one of the version
    that has had fewer episodes so far, and the mean of all that wait of the other: a share of 10 %
    is compared with nine times as many episodes of the champion, which makes pairs less variable.

    Which returns are in a pair follows from the order and the versions of the episodes, never from
    returns. So the expected value of each pair is the difference of the mean returns, whatever the
    pairs before it were: bets on it are fair. That holds too while both means change by the same
    amount.

    Args:
        is_challenger: which version decided in each episode `[E]`.
        returns: of the episodes `[E]`.
    """
    waiting: tuple[deque[float], deque[float]] = (deque(), deque())
    counts = [0, 0]
    differences = []
    for of_challenger, one_return in zip(is_challenger, returns, strict=True):
        waiting[of_challenger].append(one_return)
        counts[of_challenger] += 1
        if not (waiting[0] and waiting[1]):
            continue
        fewer = int(counts[1] <= counts[0])
        others = waiting[1 - fewer]
        one = waiting[fewer].popleft()
        gain = one - sum(others) / len(others)
        others.clear()
        differences.append(gain if fewer else -gain)
    return np.array(differences, np.float64)


def log_capital(unit: DoubleArray, mean: float) -> DoubleArray:
    """The log-capital after each value `[P]` of bets on more than a mean, which are fair for it.

    A capital of 1 is shared out equally to `BETS`; each part bets its constant share on every
    value. The sum is a martingale if the mean is true: it reaches 1/p with a probability of at
    most p (Ville's inequality), however often one looks. It falls as the mean rises. Waudby-Smith
    and Ramdas 2023, "Estimating means of bounded random variables by betting" (JRSS-B 86),
    sections 4 and 5; a mixture of constant bets, as in Cover's universal portfolio.

    Args:
        unit: values in [0, 1] `[P]`.
        mean: that is to be disproved, in (0, 1].
    """
    parts = np.cumsum(np.log1p(BETS[:, None] * (unit / mean - 1)), axis=1)
    capital: DoubleArray = np.logaddexp.reduce(parts, axis=0) - np.log(len(BETS))
    return capital


def _lower_limit(unit: DoubleArray) -> float:
    """The largest mean in [0, 1] that bets on more ever disproved, or 0."""
    low, high = 0.0, 1.0
    if not len(unit):
        return low
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_disproved = log_capital(unit, middle).max() >= DISPROOF
        low, high = (middle, high) if is_disproved else (low, middle)
    return low


def _more_pairs(unit: DoubleArray) -> float | None:
    """About how many more pairs disprove that there is no difference, if they are as those so far.

    From the growth of the log-capital per pair under the best constant bet in hindsight.
    """
    if len(unit) < _MIN_PAIRS:
        return None
    side = unit if unit.mean() >= 0.5 else 1 - unit
    growth = np.log1p(BETS[:, None] * (2 * side - 1)).mean(axis=1).max()
    if growth <= 0:
        return None
    return float((DISPROOF - log_capital(side, 0.5)[-1]) / growth)
