"""Decisions as lines of the log, reusing the JSON that was encoded for their answers."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from serving.policy.columns import Columns, encode
from serving.policy.decide import ActResult, DecisionRequest


class DecidedRequest(NamedTuple):
    """A decided request, and its results as JSON."""

    id: str  # of the request
    request: DecisionRequest
    result: ActResult
    columns: Columns


class Clock:
    """The time in the format of RFC 3339; each second is formatted only once."""

    def __init__(self) -> None:
        self._second, self._text = -1, ""

    def now(self) -> str:
        """The time now in UTC, with microseconds."""
        second, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{nanoseconds // 1000:06d}Z"


_DECISION = (
    b'{"type":"decision","number":%d,"id":"%b","time":"%b","model":%b,"selection":"%b",%b%b%b'
    b'"actions":[%b],"log_probabilities":[%b],"state_values":[%b],%b"milliseconds":%b}\n'
)


def decision_lines(
    decided: Sequence[DecidedRequest], number: int, now: str, milliseconds: float, *, rows: bool
) -> list[bytes]:
    """The lines of decisions that were made together.

    Args:
        decided: the decisions.
        number: of the first line.
        now: the time.
        milliseconds: how long they took together.
        rows: whether the observations are recorded.
    """
    when, took = now.encode(), b"%.3f" % milliseconds
    return [
        _DECISION
        % (
            number + index,
            own_id.encode(),
            when,
            request.policy.identity_json,
            request.selection.encode(),
            _episode(request),
            b'"observations":[%b],' % columns.rows("observations", result) if rows else b"",
            _sampling(request, result),
            columns.numbers("actions", result),
            columns.numbers("log_probabilities", result),
            columns.numbers("state_values", result),
            b'"warnings":%b,' % encode(result.warnings) if result.warnings else b"",
            took,
        )
        for index, (own_id, request, result, columns) in enumerate(decided)
    ]


def _episode(request: DecisionRequest) -> bytes:
    episode = b"" if request.episode is None else b'"episode":"%b",' % request.episode.encode()
    return episode if request.step is None else b'%b"step":%d,' % (episode, request.step)


def _sampling(request: DecisionRequest, result: ActResult) -> bytes:
    _, deterministic, uniforms = request.sampling
    if deterministic is False and uniforms is None:
        return b'"seed":%d,' % result.seed
    how = b'"seed":%d,' % result.seed if uniforms is None else b'"uniforms":%b,' % encode(uniforms)
    return how + b'"deterministic":%b,' % encode(deterministic)
