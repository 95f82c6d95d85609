"""Sums over decisions that the served version and its shadow made about the same observations."""

from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from serving.policy.observations import FloatArray, Ranges
from serving.policy.outputs import PolicyOutputs
from serving.schemas import Comparison, ModelVersion, ObservationComparison

BINS = 10


class Sums(NamedTuple):
    """Totals, which may be negative or fractional."""

    decisions: float = 0.0
    skipped: float = 0.0
    failures: float = 0.0
    agreements: float = 0.0
    kl_nats: float = 0.0
    value_difference: float = 0.0  # the shadow's minus the served version's
    absolute_value_difference: float = 0.0


class Table(NamedTuple):
    """The sums, and where in the space of observations the most probable actions differ."""

    sums: Sums
    decisions: npt.NDArray[np.float64]  # [O, BINS], by each of the `O` numbers of an observation
    disagreements: npt.NDArray[np.float64]  # [O, BINS]

    @staticmethod
    def size(numbers: int) -> int:
        """Length of the array that holds a table for observations of `O` numbers."""
        return len(Sums._fields) + 2 * numbers * BINS

    def to_array(self) -> npt.NDArray[np.float64]:
        """The whole table in one array, `[size(O)]`."""
        return np.concatenate([self.sums, self.decisions.ravel(), self.disagreements.ravel()])

    @classmethod
    def from_array(cls, array: npt.NDArray[np.float64]) -> Self:
        """The inverse of `to_array`."""
        sums, counts = np.split(array, [len(Sums._fields)])
        decisions, disagreements = counts.reshape(2, -1, BINS)
        return cls(Sums._make(sums.tolist()), decisions, disagreements)


def compare(
    observations: FloatArray, served: PolicyOutputs, shadow: PolicyOutputs, ranges: Ranges
) -> Table:
    """Compare what two policies computed for observations `[B, O]`.

    For each number, ten bins divide the range that training saw (`ranges`); the outer bins are
    open-ended. Rows with a non-finite output of the shadow are skipped: clients chose them.

    Raises:
        FloatingPointError: no row is left.
    """
    is_finite = np.isfinite(shadow.action_logits).all(axis=1) & np.isfinite(shadow.state_values)
    if not is_finite.any():
        raise FloatingPointError("no output is finite")
    skipped = int(np.count_nonzero(~is_finite))
    if skipped:
        observations = observations[is_finite]
        served, shadow = (
            PolicyOutputs._make(output[is_finite] for output in outputs)
            for outputs in (served, shadow)
        )
    logits, values = shadow.action_logits, shadow.state_values
    log_served, log_shadow = _log_softmax(served.action_logits), _log_softmax(logits)
    kl_nats = float(np.vdot(np.exp(log_served), log_served - log_shadow))
    difference = values.astype(np.float64) - served.state_values
    differs = served.greedy_actions != shadow.greedy_actions
    width = np.maximum(ranges.high - ranges.low, np.finfo(np.float32).tiny)
    with np.errstate(over="ignore"):
        bins = np.clip((observations - ranges.low) / width * BINS, 0, BINS - 1).astype(np.intp)
    numbers = observations.shape[1]
    flat = bins + BINS * np.arange(numbers)
    shape, length = (numbers, BINS), numbers * BINS
    sums = Sums(
        decisions=len(observations),
        skipped=skipped,
        agreements=len(observations) - int(np.count_nonzero(differs)),
        kl_nats=max(0.0, kl_nats),
        value_difference=float(difference.sum()),
        absolute_value_difference=float(np.abs(difference).sum()),
    )
    decisions, disagreements = (
        np.bincount(part.ravel(), minlength=length).astype(np.float64).reshape(shape)
        for part in (flat, flat[differs])
    )
    return Table(sums, decisions, disagreements)


def report(table: Table, served: ModelVersion, shadow: ModelVersion, ranges: Ranges) -> Comparison:
    """What `GET /models/<name>/comparison` answers."""
    sums = table.sums

    def mean(total: float) -> float | None:
        return total / sums.decisions if sums.decisions else None

    observations = [
        ObservationComparison(
            name,
            np.linspace(low, high, BINS + 1).tolist(),
            decisions.astype(int).tolist(),
            disagreements.astype(int).tolist(),
        )
        for name, low, high, decisions, disagreements in zip(
            ranges.names,
            ranges.low.tolist(),
            ranges.high.tolist(),
            table.decisions,
            table.disagreements,
            strict=True,
        )
    ]
    return Comparison(
        served=served,
        shadow=shadow,
        decisions=int(sums.decisions),
        skipped=int(sums.skipped),
        failures=int(sums.failures),
        agreement=mean(sums.agreements),
        kl_divergence=mean(sums.kl_nats),
        value_difference=mean(sums.value_difference),
        absolute_value_difference=mean(sums.absolute_value_difference),
        observations=observations,
    )


def _log_softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Log-probabilities `[B, A]`, which stay finite where a float32 probability rounds to 0."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    log_probabilities: npt.NDArray[np.float64]
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return log_probabilities
