"""Requests decided together, from any protocol and transport."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from serving.api.body import INLINE_BYTES
from serving.collection import collection
from serving.errors import ProblemError, UnexpectedError
from serving.policy.columns import Columns
from serving.policy.decide import ActResult, DecisionRequest
from serving.record.encoding import DecidedRequest
from serving.record.log import DecisionLog
from serving.service import DecisionService

logger = logging.getLogger(__name__)

C = TypeVar("C", bound="Call")
R = TypeVar("R")
T = TypeVar("T")
# Deciding a row takes many times the bytes that it has in a body.
_BATCH_BYTES = 4 * INLINE_BYTES
# What to decide, and how to write the result.
Decoding = tuple[DecisionRequest, Callable[[ActResult, Columns], T]]


class Call(Protocol):
    """A request that is not decoded yet, with the attributes that the logs need."""

    @property
    def id(self) -> str:
        """The request's id."""

    @property
    def method(self) -> str:
        """The HTTP method."""

    @property
    def path(self) -> str:
        """The HTTP path."""


class Batches:
    """Decides for requests that arrived together; may be called from several threads."""

    def __init__(self, service: DecisionService, log: DecisionLog | None) -> None:
        """`log` records what is decided."""
        self._service = service
        self._log = log

    def decide(
        self, calls: Sequence[C], decode: Callable[[C], Decoding[T]], *, are_large: bool = False
    ) -> list[T | ProblemError]:
        """Decode all, decide together, encode each; a failed request does not affect the others.

        If some are large, garbage collection pauses. `decode` may raise `ProblemError`.
        """
        if are_large:
            with collection.paused():
                return self._decide(calls, decode)
        return self._decide(calls, decode)

    def _decide(
        self, calls: Sequence[C], decode: Callable[[C], Decoding[T]]
    ) -> list[T | ProblemError]:
        answers: dict[int, T | ProblemError] = {}
        decoded: dict[int, Decoding[T]] = {}
        started = time.perf_counter_ns()
        for index, call in enumerate(calls):
            try:
                decoded[index] = decode(call)
            except ProblemError as error:
                answers[index] = _without_frames(error)
            except Exception:  # a bug fails only the request that meets it
                answers[index] = _failed(call)
        try:
            by_batch: dict[int, Columns] = {}
            is_decoded = time.perf_counter_ns()
            requests = [decision for decision, _ in decoded.values()]
            results = self._service.decide_many(requests)
            is_decided = time.perf_counter_ns()
            decided: list[DecidedRequest] = []
            for (index, (decision, encode)), result in zip(decoded.items(), results, strict=True):
                if isinstance(result, ProblemError):
                    answers[index] = _without_frames(result)
                else:
                    columns = by_batch.get(id(result.batch))
                    if columns is None:
                        columns = by_batch[id(result.batch)] = Columns(result)
                    answers[index] = encode(result, columns)
                    if self._log is not None:
                        decided.append(DecidedRequest(calls[index].id, decision, result, columns))
            is_encoded = time.perf_counter_ns()
            self._service.count(requests, results, (started, is_decoded, is_decided, is_encoded))
            if self._log is not None:
                self._log.record_decisions(decided, (is_encoded - started) / 1e6)
        except Exception:  # a bug that one request meets: decide each alone to find it
            if len(calls) > 1:
                return [answer for call in calls for answer in self._decide([call], decode)]
            answers[0] = _failed(calls[0])
        return [answers[index] for index in range(len(calls))]


def in_batches(requests: Sequence[R], size: Callable[[R], int]) -> Iterator[list[R]]:
    """Split requests, in order, into batches that take limited memory to decide.

    Args:
        requests: to be decided.
        size: the bytes of a request's body or message, at most `INLINE_BYTES`.
    """
    batch: list[R] = []
    room = _BATCH_BYTES
    for request in requests:
        room -= size(request)
        if room < 0:
            yield batch
            batch, room = [], _BATCH_BYTES - size(request)
        batch.append(request)
    if batch:
        yield batch


def _without_frames(error: ProblemError) -> ProblemError:
    """Remove the error's traceback, whose frames keep the request in a reference cycle."""
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def _failed(call: Call) -> UnexpectedError:
    logger.exception("%s %s failed", call.method, call.path)
    return UnexpectedError()
