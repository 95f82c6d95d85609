"""Requests decided together, whatever protocol and transport they came by."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from serving.collection import collection
from serving.errors import ProblemError, UnexpectedError
from serving.policy.columns import Columns
from serving.policy.decide import ActResult, DecisionRequest
from serving.record.encoding import Decided
from serving.record.log import DecisionLog
from serving.service import DecisionService

logger = logging.getLogger(__name__)

T = TypeVar("T")
# What to decide, and how to write the result.
Decoding = tuple[DecisionRequest, Callable[[ActResult, Columns], T]]


class Pending(NamedTuple, Generic[T]):
    """A request that is not decoded yet."""

    id: str
    method: str
    path: str
    decode: Callable[[], Decoding[T]]  # raises `ProblemError`


class Batches:
    """Decides for requests that arrived together; may be called from several threads."""

    def __init__(self, service: DecisionService, log: DecisionLog | None) -> None:
        """`log` records what is decided."""
        self._service = service
        self._log = log

    def decide(
        self, requests: Sequence[Pending[T]], *, are_large: bool = False
    ) -> list[T | ProblemError]:
        """Decode all, decide together, encode each; one that fails leaves the others alone.

        Large ones are decoded without a garbage collection.
        """
        if are_large:
            with collection.paused():
                return self._decide(requests)
        return self._decide(requests)

    def _decide(self, pending: Sequence[Pending[T]]) -> list[T | ProblemError]:
        answers: dict[int, T | ProblemError] = {}
        decoded: dict[int, Decoding[T]] = {}
        started = time.perf_counter_ns()
        for index, one in enumerate(pending):
            try:
                decoded[index] = one.decode()
            except ProblemError as error:
                answers[index] = error
            except Exception:
                answers[index] = _failed(one)
        try:
            by_batch: dict[int, Columns] = {}
            is_decoded = time.perf_counter_ns()
            requests = [decision for decision, _ in decoded.values()]
            results = self._service.decide_many(requests)
            is_decided = time.perf_counter_ns()
            decided: list[Decided] = []
            for (index, (decision, encode)), result in zip(decoded.items(), results, strict=True):
                if isinstance(result, ProblemError):
                    answers[index] = result
                else:
                    columns = by_batch.get(id(result.batch))
                    if columns is None:
                        columns = by_batch[id(result.batch)] = Columns(result)
                    answers[index] = encode(result, columns)
                    if self._log is not None:
                        decided.append(Decided(pending[index].id, decision, result, columns))
            is_encoded = time.perf_counter_ns()
            self._service.count(requests, results, (started, is_decoded, is_decided, is_encoded))
            if self._log is not None:
                self._log.decided(decided, (is_encoded - started) / 1e6)
        except Exception:
            if len(pending) > 1:
                return [answer for one in pending for answer in self._decide([one])]
            answers[0] = _failed(pending[0])
        return [answers[index] for index in range(len(pending))]


def _failed(one: Pending[T]) -> UnexpectedError:
    logger.exception("%s %s failed", one.method, one.path)
    return UnexpectedError()
