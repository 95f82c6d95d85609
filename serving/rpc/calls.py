"""Calls: what each goes through, whatever its service; decisions that are ready are made together.

All runs in the thread of the event loop, but for large calls and those that take their time.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

import grpc
import msgspec
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message

from serving.api.app import Api
from serving.api.batch import Decoding, Pending
from serving.api.body import LARGE_BYTES
from serving.api.exchange import Finished
from serving.api.keys import Key
from serving.errors import (
    InvalidRequestError,
    ProblemError,
    TooBusyError,
    UnexpectedError,
)
from serving.rpc.call import Call, abort, address

logger = logging.getLogger(__name__)

# Of a message that is decided about in the loop, as over HTTP.
INLINE_BYTES = 128 * 1024
# The client is gone; nginx's number, and TensorFlow Serving's for CANCELLED.
_CANCELLED = 499
Decode = Callable[[bytes, Mapping[str, str]], Decoding[bytes]]


class DeadlineError(ProblemError):
    """The client's deadline passed before the call was decided."""

    status = HTTPStatus.GATEWAY_TIMEOUT


class Watch(Protocol):
    """What knows which calls are in flight."""

    def begin(self, request: "Call") -> None:
        """A call is handled from now on."""

    def end(self, request: "Call") -> None:
        """A call has its answer."""


class Method(NamedTuple):
    """A method that is no decision.

    Attributes:
        request: class of its message.
        response: class of its answer.
        answer: makes the answer's fields, an object with the protocol's names in JSON.
        is_public: whether it needs no key.
        operates: whether it changes what is served.
        is_slow: whether it takes its time, and so a thread.
    """

    request: type[Message]
    response: type[Message]
    answer: Callable[[Any, Key | None], Any]
    is_public: bool = False
    operates: bool = False
    is_slow: bool = False


class Calls:
    """Handles calls within the limits of the service, and counts and logs them."""

    def __init__(
        self, api: Api, threads: ThreadPoolExecutor, max_in_threads: int, watch: Watch
    ) -> None:
        self._api = api
        self._threads = threads
        self._max_in_threads = max_in_threads
        self._in_threads = 0
        self._watch = watch
        self._ready: list[tuple[Call, Decode]] = []

    def decision(self, path: str, decode: Decode) -> Any:
        """The handler of a method that decides."""

        async def handle(message: bytes, context: Any) -> bytes:
            call = Call(path, message, context)
            if len(message) > INLINE_BYTES:
                return await self._answered(call, self._in_thread(call, self._decide, decode))
            self._ready.append((call, decode))
            if len(self._ready) == 1:
                # After all that has arrived by now.
                asyncio.get_running_loop().call_soon(self._decide_ready)
            return await self._answered(call)

        return grpc.unary_unary_rpc_method_handler(handle)

    def other(self, path: str, method: Method) -> Any:
        """The handler of a method that is no decision."""

        async def handle(message: bytes, context: Any) -> bytes:
            call = Call(path, message, context)
            if method.is_slow:
                return await self._answered(call, self._in_thread(call, self._other, method))
            call.resolve(self._other(call, method))
            return await self._answered(call)

        return grpc.unary_unary_rpc_method_handler(handle)

    async def require_key(self, context: Any) -> None:
        """End a call that is handled elsewhere, unless it has a valid key or needs none."""
        metadata = dict(context.invocation_metadata())
        try:
            self._api.exchange.require_key(metadata.get("authorization"), operates=False)
        except ProblemError as error:
            await abort(context, error, ())

    async def _answered(self, call: Call, work: Awaitable[None] | None = None) -> bytes:
        """The serialized answer, as soon as it is there."""
        size = len(call.message)
        self._watch.begin(call)
        has_room = self._api.budget.take(size)
        try:
            if not has_room:
                call.resolve(TooBusyError("too many large requests at once"))
            if work is not None:
                await work
            answer = await call.future
        finally:
            self._watch.end(call)
            if has_room:
                self._api.budget.give_back(size)
        if isinstance(answer, ProblemError):
            await abort(call.context, answer, call.trailing_metadata())
        call.context.set_trailing_metadata(call.trailing_metadata())
        return answer

    async def _in_thread(
        self, call: Call, work: Callable[..., bytes | ProblemError], *arguments: Any
    ) -> None:
        """Have a call answered in a thread."""
        if call.future.done():
            return
        if self._in_threads >= self._max_in_threads:
            error = TooBusyError("too busy")
            self._finish([call], [error], 0.0)
            call.resolve(error)
            return
        self._in_threads += 1
        loop = asyncio.get_running_loop()

        def done(answer: bytes | ProblemError) -> None:
            self._in_threads -= 1
            call.resolve(answer)

        def run() -> None:
            answer = work(call, *arguments)
            loop.call_soon_threadsafe(done, answer)

        self._threads.submit(run)

    def _decide_ready(self) -> None:
        """Decide about all calls that are ready, but not for clients that are gone."""
        ready, self._ready = self._ready, []
        for call, _ in ready:
            if call.future.cancelled():
                status = HTTPStatus.GATEWAY_TIMEOUT if call.is_late() else _CANCELLED
                self._api.exchange.finish(call.path, status, [self._finished(call)], 0.0)
        waiting = [one for one in ready if not one[0].future.done()]
        for (call, _), answer in zip(waiting, self._decide_all(waiting), strict=True):
            call.resolve(answer)

    def _decide(self, call: Call, decode: Decode) -> bytes | ProblemError:
        (answer,) = self._decide_all([(call, decode)])
        return answer

    def _decide_all(self, ready: list[tuple[Call, Decode]]) -> list[bytes | ProblemError]:
        """Decide about calls together, from any thread."""
        started = time.perf_counter()
        pending = [
            Pending(call.id, "POST", call.path, _Decoding(self._api, call, decode))
            for call, decode in ready
        ]
        are_large = any(len(call.message) > LARGE_BYTES for call, _ in ready)
        answers = self._api.batches.decide(pending, are_large=are_large)
        self._finish([call for call, _ in ready], answers, time.perf_counter() - started)
        return answers

    def _other(self, call: Call, method: Method) -> bytes | ProblemError:
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
        except Exception:
            logger.exception("POST %s failed", call.path)
            answer = UnexpectedError()
        self._finish([call], [answer], time.perf_counter() - started)
        return answer

    def _finish(
        self, calls: list[Call], answers: list[bytes | ProblemError], seconds: float
    ) -> None:
        """Count and log answers: under the statuses that they have over HTTP."""
        together: dict[tuple[str, int], list[Finished]] = {}
        for call, answer in zip(calls, answers, strict=True):
            status = answer.status if isinstance(answer, ProblemError) else HTTPStatus.OK
            together.setdefault((call.path, status), []).append(self._finished(call))
        for (path, status), finished in together.items():
            self._api.exchange.finish(path, status, finished, seconds)

    def _finished(self, call: Call) -> Finished:
        forwarded_for = call.metadata.get("x-forwarded-for")
        remote = self._api.exchange.client(address(call.context.peer()), forwarded_for)
        return Finished("POST", call.path, remote, call.id, call.traceparent)


class _Decoding:
    """Decodes a call whose key is valid and whose client still waits."""

    def __init__(self, api: Api, call: Call, decode: Decode) -> None:
        self._api = api
        self._call = call
        self._decode = decode

    def __call__(self) -> Decoding[bytes]:
        call = self._call
        self._api.exchange.require_key(call.metadata.get("authorization"), operates=False)
        if call.is_late():
            raise DeadlineError("the deadline has passed")
        return self._decode(call.message, call.metadata)


def parse(kind: type[Message], message: bytes) -> Any:
    """The message of a call.

    Raises:
        InvalidRequestError: it is none of this kind.
    """
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequestError(f"the message is no {kind.__name__}: {error}") from error
