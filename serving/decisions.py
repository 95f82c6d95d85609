"""A decision about a batch, whatever protocol asked for it. No HTTP in here."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

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
    decision, warnings = decide_with(
        policy,
        observations,
        uniforms=uniforms(seed, batch),
        deterministic=np.full(batch, deterministic),
        metrics=metrics,
    )
    return Decided(decision, seed, warnings)


def decide_with(
    policy: Policy,
    observations: FloatArray,
    *,
    uniforms: FloatArray,
    deterministic: npt.NDArray[np.bool_],
    metrics: Metrics,
) -> tuple[Decision, list[str]]:
    """Decide about observations `[B, O]` with the randomness of each row given, `[B]`.

    Returns:
        The decision, and the warnings about rows outside what training saw.

    Raises:
        InvalidRequestError: the policy overflows on a row.
    """
    decision = policy.act(observations, uniforms, deterministic)
    # Observations near the end of float32's range can overflow inside the network.
    finite = np.isfinite(decision.action_logits).all(axis=1) & np.isfinite(decision.state_values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InvalidRequestError(f"observations[{row}]: too large, the policy overflows on it")
    warnings, rows = out_of_range_warnings(observations, policy.card.observations)
    metrics.decided(policy.name, policy.card.actions.names, decision, rows)
    return decision, warnings
