"""Decisions of one policy about the rows of several requests, without metrics or logs."""

import math
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import InvalidRequestError
from serving.policy.observations import (
    FloatArray,
    Rows,
    is_outside,
    out_of_range_warnings,
    require_rows,
    to_array,
)
from serving.policy.outputs import PolicyOutputs
from serving.policy.sampling import draw_seeds, uniforms_of

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy  # imports TensorFlow


class SamplingSpec(NamedTuple):
    """How the actions of one request with `B` rows are taken."""

    seed: int | None = None  # if None, one is drawn
    deterministic: bool | npt.NDArray[np.bool_] = False  # for all rows, or `[B]`
    uniforms: FloatArray | None = None  # `[B]` in [0, 1), instead of a seed


class DecisionRequest(NamedTuple):
    """The rows of a request, as decoded from its protocol, and the policy that decides."""

    policy: "Policy"
    rows: Rows
    sampling: SamplingSpec
    episode: str | None = None  # to which the rows belong, if the client named it
    step: int | None = None  # of the first row, within the episode
    selection: str = ""  # digest of the selection that chose the policy; "" if the client chose


class ActResult(NamedTuple):
    """The decisions of one request and how they came about."""

    batch: PolicyOutputs  # of all requests that were decided together
    observations: FloatArray  # [B, O], of the batch
    start: int  # of this request's rows in the batch
    stop: int
    seed: int  # replays the actions, unless the request had uniforms
    warnings: list[str]  # about rows outside the ranges that training saw

    @property
    def outputs(self) -> PolicyOutputs:
        """What was computed for this request's rows."""
        return PolicyOutputs._make(output[self.start : self.stop] for output in self.batch)


Results = list[ActResult | InvalidRequestError]


class Decisions(NamedTuple):
    """The results of several requests."""

    results: Results  # one per request, in the same order
    outputs: PolicyOutputs | None  # of all rows of the valid requests
    rows: list[int]  # number of rows of each valid request
    out_of_range_rows: int
    sampled: FloatArray | None = None  # `[S, O]`, the observations whose actions were sampled


def decide_many(requests: Sequence[DecisionRequest], max_rows: int) -> Decisions:
    """Decide requests for one policy, of up to `max_rows` rows each, in one call of the policy.

    A row's outputs do not depend on the other rows, so results do not depend on how requests are
    batched. An invalid request gets an error, which does not affect the others.
    """
    if not requests:
        return Decisions([], None, [], 0)
    policy = requests[0].policy
    try:
        observations = _join(requests, max_rows)
    except InvalidRequestError:
        return _without([_error(request, max_rows) for request in requests], requests, max_rows)
    sampling = [request.sampling for request in requests]
    seeds = [
        drawn if spec.seed is None else spec.seed
        for spec, drawn in zip(sampling, draw_seeds(len(requests)), strict=True)
    ]
    rows = [len(request.rows) for request in requests]
    spans = list(pairwise(accumulate(rows, initial=0)))
    uniforms = uniforms_of(seeds, rows)
    deterministic = np.zeros(len(observations), np.bool_)
    for spec, (start, stop) in zip(sampling, spans, strict=True):
        if spec.deterministic is not False:
            deterministic[start:stop] = spec.deterministic
        if spec.uniforms is not None:
            uniforms[start:stop] = spec.uniforms
    outputs = policy.act(observations, uniforms, deterministic)
    # Observations near the end of float32's range can overflow inside the network.
    # A sum is finite only if all of its terms are.
    total = outputs.action_logits.sum(dtype=np.float64) + outputs.state_values.sum(dtype=np.float64)
    if not math.isfinite(total):
        finite = np.isfinite(outputs.action_logits).all(axis=1) & np.isfinite(outputs.state_values)
        errors = [_overflow(finite[start:stop]) for start, stop in spans]
        return _without(errors, requests, max_rows)
    outside = np.logical_or.reduce(is_outside(observations, policy.ranges), axis=1)
    rows_outside = int(np.count_nonzero(outside))
    results: Results = []
    for seed, (start, stop) in zip(seeds, spans, strict=True):
        warnings: list[str] = []
        if rows_outside and outside[start:stop].any():
            warnings = out_of_range_warnings(observations[start:stop], policy.ranges)
        results.append(ActResult(outputs, observations, start, stop, seed, warnings))
    sampled = observations[~deterministic] if np.count_nonzero(deterministic) else observations
    return Decisions(results, outputs, rows, rows_outside, sampled)


def _join(requests: Sequence[DecisionRequest], max_rows: int) -> FloatArray:
    """The observations of all requests; an error gives the right row only for a single request."""
    names = requests[0].policy.card.observations.names
    if len(requests) == 1:
        return to_array(requests[0].rows, names, max_rows)
    parts = [request.rows for request in requests]
    sizes = list(map(len, parts))
    for size in (min(sizes), max(sizes)):
        require_rows(size, max_rows)
    if np.ndarray not in map(type, parts):
        return to_array(list(chain.from_iterable(parts)), names, sum(sizes))
    # Joining arrays of different dtypes rounds no more than float64 does.
    arrays = [
        part if isinstance(part, np.ndarray) else to_array(part, names, max_rows) for part in parts
    ]
    return to_array(np.concatenate(arrays), names, sum(sizes))


def _error(request: DecisionRequest, max_rows: int) -> InvalidRequestError | None:
    try:
        _join([request], max_rows)
    except InvalidRequestError as error:
        return error
    return None


def _overflow(finite: npt.NDArray[np.bool_]) -> InvalidRequestError | None:
    if finite.all():
        return None
    what = "too large: the policy overflows"
    return InvalidRequestError(f"observations[{np.argmin(finite)}]: {what}")


def _without(
    errors: Sequence[InvalidRequestError | None], requests: Sequence[DecisionRequest], max_rows: int
) -> Decisions:
    """Decide again, leaving out the requests that have an error."""
    good = [one for one, error in zip(requests, errors, strict=True) if error is None]
    decisions = decide_many(good, max_rows)
    results = iter(decisions.results)
    return decisions._replace(results=[error or next(results) for error in errors])
