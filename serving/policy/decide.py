"""Decisions of one policy about the rows of several requests. Pure: nothing is counted here."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequestError
from serving.policy.observations import (
    FloatArray,
    from_numbers,
    is_outside,
    out_of_range_warnings,
    require_rows,
    to_array,
)
from serving.policy.outputs import PolicyOutputs
from serving.policy.sampling import draw_seed, uniforms_of
from serving.schemas import Row

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow

BoolArray = npt.NDArray[np.bool_]


class SamplingSpec(NamedTuple):
    """How the actions of one request with `B` rows are taken."""

    seed: int | None = None  # one is drawn where there is none
    deterministic: bool | BoolArray = False  # for all rows, or `[B]`
    uniforms: FloatArray | None = None  # `[B]` in [0, 1), in the place of a seed


class DecisionRequest(NamedTuple):
    """Rows to decide about, as their protocol decoded them, and the policy that decides."""

    policy: "Policy"
    rows: list[Row] | npt.NDArray[Any]  # `B` rows of `O` numbers
    sampling: SamplingSpec


class ActResult(NamedTuple):
    """The decisions of one request and how they came about."""

    batch: PolicyOutputs  # of all requests that were decided about together
    start: int  # of this request's rows
    stop: int
    seed: int  # replays the actions, unless the request brought uniforms
    warnings: list[str]  # rows outside what training saw

    @property
    def outputs(self) -> PolicyOutputs:
        """What was computed for this request's rows."""
        return PolicyOutputs._make(output[self.start : self.stop] for output in self.batch)


class Decisions(NamedTuple):
    """What became of several requests."""

    results: list[ActResult | InvalidRequestError]  # one a request, in their order
    outputs: PolicyOutputs | None  # of all rows that were decided about
    rows: list[int]  # of each request that was decided about
    out_of_range_rows: int


def decide_many(requests: Sequence[DecisionRequest], max_rows: int) -> Decisions:
    """Decide about the rows of all requests in one call of the policy.

    The numbers of a row do not depend on the rows beside it, so results do not depend on how
    requests are batched. A wrong request gets its error and leaves the others alone.

    Args:
        requests: at least one, all of one policy.
        max_rows: the most rows that one request may have.
    """
    policy = requests[0].policy
    names = policy.card.observations.names
    results: list[Any] = [None] * len(requests)
    good = list(range(len(requests)))
    try:
        observations = _join(requests, names, max_rows)
    except InvalidRequestError:
        arrays = []
        for index, request in enumerate(requests):
            try:
                arrays.append(_join([request], names, max_rows))
            except InvalidRequestError as error:
                results[index] = error
        good = [index for index in good if results[index] is None]
        if not good:
            return Decisions(results, None, [], 0)
        observations = np.concatenate(arrays)
    sampling = [requests[index].sampling for index in good]
    rows = [len(requests[index].rows) for index in good]
    seeds = [draw_seed() if spec.seed is None else spec.seed for spec in sampling]
    outputs = policy.act(
        observations, _uniforms(sampling, seeds, rows), _deterministic(sampling, rows)
    )
    # Observations near the end of float32's range can overflow inside the network.
    # A sum is finite only if all of its terms are.
    total = outputs.action_logits.sum(dtype=np.float64) + outputs.state_values.sum(dtype=np.float64)
    all_finite = math.isfinite(total)
    if not all_finite:
        finite = np.isfinite(outputs.action_logits).all(axis=1) & np.isfinite(outputs.state_values)
    all_inside = not is_outside(observations, policy.ranges).any()
    start = total_outside = 0
    for index, size, seed in zip(good, rows, seeds, strict=True):
        stop = start + size
        if not all_finite and not finite[start:stop].all():
            row = int(np.argmin(finite[start:stop]))
            results[index] = InvalidRequestError(
                f"observations[{row}]: too large, the policy overflows on it"
            )
        else:
            warnings: list[str] = []
            outside = 0
            if not all_inside:
                own = observations[start:stop]
                warnings, outside = out_of_range_warnings(own, policy.ranges)
            total_outside += outside
            results[index] = ActResult(outputs, start, stop, seed, warnings)
        start = stop
    if not all_finite:
        decided = [isinstance(results[index], ActResult) for index in good]
        kept = np.repeat(decided, rows)
        outputs = PolicyOutputs._make(output[kept] for output in outputs)
        rows = [size for size, is_decided in zip(rows, decided, strict=True) if is_decided]
    return Decisions(results, outputs if rows else None, rows, total_outside)


def _join(requests: Sequence[DecisionRequest], names: list[str], max_rows: int) -> FloatArray:
    """The observations of all requests one after the other.

    Raises:
        InvalidRequestError: a request is wrong; says where only if it is the only one.
    """
    for request in requests:
        require_rows(len(request.rows), max_rows)
    if all(type(request.rows) is list for request in requests):
        rows = list(chain.from_iterable(request.rows for request in requests))
        return to_array(rows, names, max_rows=len(rows))
    arrays = [
        request.rows
        if isinstance(request.rows, np.ndarray)
        else to_array(request.rows, names, max_rows)
        for request in requests
    ]
    if len(arrays) == 1:
        return from_numbers(arrays[0], names, max_rows)
    if any(array.ndim != 2 or array.shape[1] != len(names) for array in arrays):
        raise InvalidRequestError("a request has another shape")
    joined = np.concatenate([array.astype(np.float64, copy=False) for array in arrays])
    return from_numbers(joined, names, max_rows=len(joined))


def _uniforms(
    sampling: Sequence[SamplingSpec], seeds: Sequence[int], rows: Sequence[int]
) -> FloatArray:
    if all(spec.uniforms is None for spec in sampling):
        return uniforms_of(seeds, rows)
    return np.concatenate(
        [
            uniforms_of([seed], [size]) if spec.uniforms is None else spec.uniforms
            for spec, seed, size in zip(sampling, seeds, rows, strict=True)
        ]
    )


def _deterministic(sampling: Sequence[SamplingSpec], rows: Sequence[int]) -> BoolArray:
    if all(type(spec.deterministic) is bool for spec in sampling):
        return np.array([spec.deterministic for spec in sampling]).repeat(rows)
    return np.concatenate(
        [
            np.broadcast_to(spec.deterministic, size)
            for spec, size in zip(sampling, rows, strict=True)
        ]
    )
