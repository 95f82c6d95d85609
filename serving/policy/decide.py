"""Decisions about batches, whatever protocol asked for them. No HTTP in here."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequestError
from serving.metrics import Metrics
from serving.policy.observations import FloatArray, is_outside, out_of_range_warnings
from serving.policy.sampling import draw_seed, uniforms_of
from serving.policy.savedmodel import Decision, Policy


class Batch(NamedTuple):
    """What the policy is asked in one call."""

    observations: FloatArray  # [B, O]
    uniforms: FloatArray  # [B] in [0, 1), the randomness of each row
    deterministic: npt.NDArray[np.bool_]  # [B]


class Question(NamedTuple):
    """What one request asks, but for its observations."""

    rows: int
    seed: int | None
    deterministic: bool


class Decided(NamedTuple):
    """A decision and how it came about."""

    decision: Decision
    seed: int  # replays it
    warnings: list[str]  # rows outside what training saw


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
    question = Question(len(observations), seed, deterministic)
    (decided,) = decide_together(policy, observations, [question], metrics)
    return decided


def decide_together(
    policy: Policy, observations: FloatArray, questions: Sequence[Question], metrics: Metrics
) -> list[Decided]:
    """Decide for several requests in one call of the policy.

    A row's numbers do not depend on the rows beside it, so each gets what it had got alone.

    Args:
        policy: is asked.
        observations: `[B, O]`, those of all requests in their order.
        questions: the requests; their rows add up to `B`.
        metrics: count it.

    Raises:
        InvalidRequestError: the policy overflows on a row.
    """
    rows = [question.rows for question in questions]
    seeds = [draw_seed() if asked.seed is None else asked.seed for asked in questions]
    deterministic = np.array([asked.deterministic for asked in questions]).repeat(rows)
    batch = Batch(observations, uniforms_of(seeds, rows), deterministic)
    answers = decide_batch(policy, batch, rows, metrics)
    return [
        Decided(decision, seed, warnings)
        for (decision, warnings), seed in zip(answers, seeds, strict=True)
    ]


def decide_batch(
    policy: Policy, batch: Batch, rows: Sequence[int], metrics: Metrics
) -> list[tuple[Decision, list[str]]]:
    """Decide about the rows of one or more requests, whose randomness is known.

    Args:
        policy: is asked.
        batch: `B` rows.
        rows: how many of them are each request's.
        metrics: count it.

    Returns:
        For each request the decision, and the warnings about rows outside what training saw.

    Raises:
        InvalidRequestError: the policy overflows on a row; its number counts from the first.
    """
    decision = policy.act(*batch)
    # Observations near the end of float32's range can overflow inside the network.
    finite = np.isfinite(decision.action_logits).all(axis=1) & np.isfinite(decision.state_values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InvalidRequestError(f"observations[{row}]: too large, the policy overflows on it")
    metrics.decided(policy.name, policy.card.actions.names, decision)
    all_inside = not is_outside(batch.observations, policy.ranges).any()
    answers, start, total_outside = [], 0, 0
    for size in rows:
        stop = start + size
        own = batch.observations[start:stop]
        warnings, outside = ([], 0) if all_inside else out_of_range_warnings(own, policy.ranges)
        total_outside += outside
        answers.append((decision.rows(start, stop), warnings))
        start = stop
    metrics.asked(policy.name, rows, total_outside)
    return answers
