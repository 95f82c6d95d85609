"""Decisions about batches, whatever protocol asked for them. No HTTP in here."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequestError
from serving.metrics import Metrics
from serving.observations import FloatArray, out_of_range_warnings
from serving.policy import Decision, Policy
from serving.sampling import draw_seed, uniforms


class Batch(NamedTuple):
    """What one request asks the policy."""

    observations: FloatArray  # [B, O]
    uniforms: FloatArray  # [B] in [0, 1), the randomness of each row
    deterministic: npt.NDArray[np.bool_]  # [B]


class Decided(NamedTuple):
    """A decision and how it came about."""

    decision: Decision
    seed: int  # replays it
    warnings: list[str]  # rows outside what training saw


def seeded(observations: FloatArray, seed: int, deterministic: bool) -> Batch:
    """A batch about observations `[B, O]` whose randomness is that of a seed."""
    rows = len(observations)
    return Batch(observations, uniforms(seed, rows), np.full(rows, deterministic))


def decide(
    policy: Policy,
    observations: FloatArray,
    *,
    seed: int | None,
    deterministic: bool,
    metrics: Metrics,
) -> Decided:
    """Decide about observations `[B, O]`, drawing a seed where none is given.

    Raises:
        InvalidRequestError: the policy overflows on a row.
    """
    seed = draw_seed() if seed is None else seed
    batch = seeded(observations, seed, deterministic)
    ((decision, warnings),) = decide_together(policy, [batch], metrics)
    return Decided(decision, seed, warnings)


def decide_together(
    policy: Policy, batches: Sequence[Batch], metrics: Metrics
) -> list[tuple[Decision, list[str]]]:
    """Decide about the batches of several requests in one call of the policy.

    A row's numbers do not depend on the rows beside it, so each gets what it had got alone.

    Returns:
        For each batch the decision, and the warnings about rows outside what training saw.

    Raises:
        InvalidRequestError: the policy overflows on a row; its number counts from the first batch.
    """
    joined = Batch(*map(np.concatenate, zip(*batches, strict=True))) if batches[1:] else batches[0]
    decision = policy.act(*joined)
    # Observations near the end of float32's range can overflow inside the network.
    finite = np.isfinite(decision.action_logits).all(axis=1) & np.isfinite(decision.state_values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InvalidRequestError(f"observations[{row}]: too large, the policy overflows on it")
    metrics.decided(policy.name, policy.card.actions.names, decision)
    answers, start = [], 0
    for batch in batches:
        stop = start + len(batch.observations)
        warnings, rows = out_of_range_warnings(batch.observations, policy.ranges)
        metrics.asked(policy.name, stop - start, rows)
        answers.append((decision.rows(start, stop), warnings))
        start = stop
    return answers
