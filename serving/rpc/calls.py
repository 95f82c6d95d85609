"""Handles the calls of all services; decisions that are ready are made together.

Each call has a thread of grpcio's synchronous server: there, calls that have arrived can wait for
each other and form a batch, while `grpc.aio` hands them over one by one.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import grpc
import msgspec
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message

from serving.api.app import Api
from serving.api.batch import Decoding, in_batches
from serving.api.body import INLINE_BYTES, LARGE_BYTES
from serving.api.exchange import Finished
from serving.api.keys import Key
from serving.api.problems import protocol_status
from serving.errors import (
    InvalidRequestError,
    NoMemoryError,
    ProblemError,
    TooBusyError,
    UnexpectedError,
    WorkerStuckError,
)
from serving.rpc.call import Call, abort, address, metadata_of

logger = logging.getLogger(__name__)

# How long a call's thread decides for other calls before it hands them to another thread.
LEAD_SECONDS = 0.01
Decode = Callable[[bytes, Mapping[str, str]], Decoding[bytes]]


class DeadlineError(ProblemError):
    """The client's deadline passed before the call was decided."""

    status = HTTPStatus.GATEWAY_TIMEOUT


class Watch(Protocol):
    """Keeps track of the calls in flight."""

    def begin(self, request: Call) -> None:
        """Record that a call is in flight."""

    def end(self, request: Call) -> None:
        """Record that a call has its answer."""


class Method(NamedTuple):
    """A method that is not a decision.

    Attributes:
        request: class of its message.
        response: class of its answer.
        answer: makes the answer's fields, an object with the protocol's names in JSON.
        is_public: whether it needs no key.
        operates: whether it changes what is served.
    """

    request: type[Message]
    response: type[Message]
    answer: Callable[[Any, Key | None], Any]
    is_public: bool = False
    operates: bool = False


class Calls:
    """Handles calls within the limits of the service, and counts and logs them."""

    def __init__(self, api: Api, max_large: int, watch: Watch) -> None:
        """Handle at most `max_large` large messages at a time."""
        self._api = api
        self._max_large = max_large
        self._large = 0
        self._watch = watch
        self._lock = threading.Lock()
        self._decoders: dict[str, Decode] = {}  # by the paths of methods that decide
        self._ready: list[Call] = []
        self._is_deciding = False
        self._is_stuck = False
        self._executor = ThreadPoolExecutor(1, "decisions")
        self._executor.submit(int)  # starts its thread now: later, a process limit may forbid it

    def decision(self, path: str, decode: Decode) -> Any:
        """The handler of a method that decides."""
        self._decoders[path] = decode
        return self._handler(path, self._decide)

    def other(self, path: str, method: Method) -> Any:
        """The handler of a method that is not a decision."""
        return self._handler(path, partial(self._other, method))

    def require_key(self, context: Any) -> None:
        """End a call that grpcio's own services handle, unless it has a valid key or needs none."""
        authorization = metadata_of(context).get("authorization")
        try:
            self._api.exchange.require_key(authorization, operates=False)
        except ProblemError as error:
            abort(context, error, ())

    def _handler(self, path: str, work: Callable[[Call], None]) -> Any:
        """The handler of a method; `work` resolves its calls, or has another thread do so."""

        def handle(message: bytes, context: Any) -> bytes:
            call = Call(path, message, context, self._give_up)
            has_room = self._api.budget.take(len(message))
            self._watch.begin(call)
            try:
                if has_room:
                    work(call)
                else:
                    self._refuse(call, NoMemoryError())
                answer = call.wait()
            finally:
                self._watch.end(call)
                if has_room:
                    self._api.budget.give_back(len(message))
            if isinstance(answer, ProblemError):
                abort(context, answer, call.trailing_metadata())
            context.set_trailing_metadata(call.trailing_metadata())
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)

    def _refuse(self, call: Call, error: ProblemError) -> None:
        self._finish([call], [error], 0.0)
        call.resolve(error)

    def _decide(self, call: Call) -> None:
        """Decide a call, together with those that arrive while other calls are being decided.

        The thread of the first waiting call decides for all, so a single call wakes no other
        thread. If calls keep coming, the executor takes over, so that the first call is answered.
        """
        if len(call.message) > INLINE_BYTES:
            self._decide_large(call)
            return
        with self._lock:
            is_stuck = self._is_stuck
            if not is_stuck:
                self._ready.append(call)
                if self._is_deciding:
                    return
                self._is_deciding = True
        if is_stuck:
            self._refuse(call, WorkerStuckError())
            return
        self._lead(LEAD_SECONDS)

    def _lead(self, seconds: float) -> None:
        """Decide all waiting calls, and for `seconds` also those that arrive meanwhile."""
        until = time.monotonic() + seconds
        while True:
            # Yield: threads that have received a call by now can add it to this batch.
            time.sleep(0)
            with self._lock:
                ready, self._ready = self._ready, []
                if not ready:
                    self._is_deciding = False
                    return
            for batch in in_batches(ready, lambda call: len(call.message)):
                for call, answer in zip(batch, self._decide_all(batch), strict=True):
                    call.resolve(answer)
            if time.monotonic() >= until:
                self._executor.submit(self._lead, math.inf)
                return

    def _give_up(self, stuck: Call) -> None:
        """Refuse the calls that wait for a stuck one, and all that come before the worker ends."""
        if len(stuck.message) > INLINE_BYTES:
            return  # large calls are decided alone, so no other call waits for this one
        with self._lock:
            self._is_stuck = True
            ready, self._ready = self._ready, []
        for call in ready:
            self._refuse(call, WorkerStuckError())

    def _decide_large(self, call: Call) -> None:
        with self._lock:
            is_too_much = self._large >= self._max_large
            self._large += not is_too_much
        if is_too_much:
            self._api.metrics.shed.inc()
            self._refuse(call, TooBusyError())
            return
        try:
            (answer,) = self._decide_all([call])
        finally:
            with self._lock:
                self._large -= 1
        call.resolve(answer)

    def _decide_all(self, ready: list[Call]) -> list[bytes | ProblemError]:
        """Decide calls together, from any thread."""
        started = time.perf_counter()
        are_large = any(len(call.message) > LARGE_BYTES for call in ready)
        answers = self._api.batches.decide(ready, self._decode, are_large=are_large)
        self._finish(ready, answers, time.perf_counter() - started)
        return answers

    def _decode(self, call: Call) -> Decoding[bytes]:
        """Decode a call whose key is valid and whose client still waits."""
        self._api.exchange.require_key(call.metadata.get("authorization"), operates=False)
        if call.is_late():
            raise DeadlineError("the deadline has passed")
        return self._decoders[call.path](call.message, call.metadata)

    def _other(self, method: Method, call: Call) -> None:
        started = time.perf_counter()
        answer: bytes | ProblemError
        try:
            key = None
            if not method.is_public:
                key = self._api.exchange.require_key(
                    call.metadata.get("authorization"), operates=method.operates
                )
            given = parse(method.request, call.message)
            content = msgspec.to_builtins(method.answer(given, key))
            answer = ParseDict(content, method.response()).SerializeToString()
        except ProblemError as error:
            answer = error
        except Exception:  # a bug fails only the call that meets it
            logger.exception("%s %s failed", call.method, call.path)
            answer = UnexpectedError()
        self._finish([call], [answer], time.perf_counter() - started)
        call.resolve(answer)

    def _finish(
        self, calls: list[Call], answers: list[bytes | ProblemError], seconds: float
    ) -> None:
        """Count and log answers with the statuses that they would have over HTTP."""
        together: dict[tuple[str, int], list[Finished]] = {}
        for call, answer in zip(calls, answers, strict=True):
            status: int = HTTPStatus.OK
            if isinstance(answer, ProblemError):
                status = protocol_status(answer.status)
            together.setdefault((call.path, status), []).append(self._finished(call))
        for (path, status), finished in together.items():
            self._api.exchange.finish(path, status, finished, seconds)

    def _finished(self, call: Call) -> Finished:
        forwarded_for = call.metadata.get("x-forwarded-for")
        remote = self._api.exchange.client(address(call.context.peer()), forwarded_for)
        return Finished(call.method, call.path, remote, call.id, call.traceparent)


def parse(kind: type[Message], message: bytes) -> Any:
    """The message of a call.

    Raises:
        InvalidRequestError: it is not of this kind.
    """
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequestError(f"the message is not a {kind.__name__}: {error}") from error
