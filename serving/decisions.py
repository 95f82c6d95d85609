"""A decision about a batch, whatever protocol asked for it. No HTTP in here."""

from typing import NamedTuple

import numpy as np

from serving.errors import InvalidRequestError
from serving.metrics import Metrics
from serving.observations import FloatArray, out_of_range_warnings
from serving.policy import Decision, Policy
from serving.sampling import draw_seed, uniforms


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
    batch = len(observations)
    seed = draw_seed() if seed is None else seed
    decision = policy.act(observations, uniforms(seed, batch), np.full(batch, deterministic))
    # Observations near the end of float32's range can overflow inside the network.
    finite = np.isfinite(decision.action_logits).all(axis=1) & np.isfinite(decision.state_values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InvalidRequestError(f"observations[{row}]: too large, the policy overflows on it")
    warnings, rows = out_of_range_warnings(observations, policy.card.observations)
    metrics.decided(policy.name, policy.card.actions.names, decision, rows)
    return Decided(decision, seed, warnings)
