"""How often two policies decide differently about recorded observations."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from serving.policy.observations import FloatArray
from serving.policy.sampling import uniforms_of
from serving.record.lines import Decision

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow

MAX_ROWS = 100_000  # only the newest rows are recomputed
BATCH_ROWS = 8192


class Agreement(NamedTuple):
    """How often two policies differ when decisions are recomputed.

    Attributes:
        rows: observations that both policies decided about.
        greedy: share of them on which the most probable actions differ; None without rows.
        recorded: share on which the actions differ: the actions sampled with the recorded seeds,
            or the most probable ones for deterministic requests; None without rows.
    """

    rows: int
    greedy: float | None
    recorded: float | None


class NewestRows:
    """Keeps the newest decisions with observations: up to `MAX_ROWS` rows, or a single decision."""

    def __init__(self) -> None:
        self._decisions: list[Decision] = []
        self._rows = 0

    def add(self, decision: Decision) -> None:
        """Add a decision, from any worker's file."""
        if decision.observations is None:
            return
        self._decisions.append(decision)
        self._rows += len(decision.actions)
        if self._rows > 2 * MAX_ROWS:
            self._drop_old()

    def take(self) -> list[Decision]:
        """The newest decisions, oldest first."""
        self._drop_old()
        return self._decisions

    def _drop_old(self) -> None:
        if not self._decisions:
            return
        # RFC 3339 in UTC with a fixed number of digits: text order is time order.
        self._decisions.sort(key=lambda decision: decision.time)
        behind = np.cumsum([len(decision.actions) for decision in reversed(self._decisions)])
        kept = max(1, int(np.searchsorted(behind, MAX_ROWS, side="right")))
        self._decisions = self._decisions[-kept:]
        self._rows = int(behind[kept - 1])


def agreement(decisions: list[Decision], first: "Policy", second: "Policy") -> Agreement:
    """Recompute with both policies the decisions whose observations have their length `O`."""
    rows = greedy = recorded = 0
    width = len(first.card.observations.names)
    for batch in _batches([one for one in decisions if _width(one) == width]):
        observations = np.array(
            [row for decision in batch for row in decision.observations or []], np.float32
        )
        uniforms = np.concatenate([_uniforms(decision) for decision in batch])
        deterministic = np.concatenate(
            [
                np.broadcast_to(np.array(decision.deterministic), len(decision.actions))
                for decision in batch
            ]
        )
        one, other = (
            policy.act(observations, uniforms, deterministic) for policy in (first, second)
        )
        rows += len(observations)
        greedy += int(np.count_nonzero(one.greedy_actions != other.greedy_actions))
        recorded += int(np.count_nonzero(one.actions != other.actions))
    if not rows:
        return Agreement(0, None, None)
    return Agreement(rows, greedy / rows, recorded / rows)


def _batches(decisions: list[Decision]) -> list[list[Decision]]:
    batches: list[list[Decision]] = []
    room = 0
    for decision in decisions:
        if room <= 0:
            batches.append([])
            room = BATCH_ROWS
        batches[-1].append(decision)
        room -= len(decision.actions)
    return batches


def _width(decision: Decision) -> int:
    return len(decision.observations[0]) if decision.observations else 0


def _uniforms(decision: Decision) -> FloatArray:
    """The randomness of the rows `[B]`, as the service used it."""
    if decision.uniforms is not None:
        return np.array(decision.uniforms, np.float32)
    return uniforms_of([decision.seed or 0], [len(decision.actions)])
