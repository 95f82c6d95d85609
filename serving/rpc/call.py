"""One call of a client, and how it ends."""

import threading
from collections.abc import Callable
from http import HTTPStatus
from itertools import accumulate
from typing import Any, NoReturn

import grpc

from serving.api.exchange import request_id
from serving.api.forwarding import traceparent
from serving.errors import PolicyTimeoutError, ProblemError

# gRPC has 16 codes: https://grpc.io/docs/guides/status-codes/.
_CODES = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    HTTPStatus.INTERNAL_SERVER_ERROR: grpc.StatusCode.INTERNAL,
}

_MAX_DETAIL_BYTES = 4096  # a detail is metadata, of which clients accept 8 KiB at most
Metadata = tuple[tuple[str, str], ...]


class Call:
    """One call in flight.

    Attributes:
        method: HTTP/2's, the same for all calls.
        path: `/package.Service/Method`.
        metadata: see `metadata_of`.
        id: of the request.
        answer: the serialized answer, or the error; None until the call is resolved.
    """

    method = "POST"

    def __init__(
        self, path: str, message: bytes, context: Any, on_stuck: Callable[["Call"], None]
    ) -> None:
        self._on_stuck = on_stuck
        self.path = path
        self.message = message
        self.context = context
        self.metadata = metadata_of(context)
        self.id = request_id(self.metadata.get("x-request-id"))
        self.traceparent = traceparent(self.metadata.get("traceparent"))
        self.answer: bytes | ProblemError | None = None
        self._may_answer = threading.Lock()
        self._is_answered = threading.Lock()
        self._is_answered.acquire()

    def trailing_metadata(self) -> Metadata:
        """The metadata that every answer has."""
        own = (("x-request-id", self.id),)
        return own if self.traceparent is None else (*own, ("traceparent", self.traceparent))

    def is_late(self) -> bool:
        """Whether the client's deadline has passed, or the client is gone.

        It counts from when the call is received, so the client's own deadline may be earlier.
        """
        remaining = self.context.time_remaining()
        return (remaining is not None and remaining <= 0) or not self.context.is_active()

    def resolve(self, answer: bytes | ProblemError) -> None:
        """Set the answer, unless the watchdog has set one."""
        if self._may_answer.acquire(blocking=False):
            self.answer = answer
            self._is_answered.release()

    def wait(self) -> bytes | ProblemError:
        """Wait for the answer."""
        self._is_answered.acquire()
        assert self.answer is not None
        return self.answer

    def abandon(self, _answer: object) -> None:
        """Answer for a call that nobody else will answer; the watchdog's thread calls it."""
        self.resolve(PolicyTimeoutError())
        self._on_stuck(self)


def metadata_of(context: Any) -> dict[str, str]:
    """A call's metadata by name, in lower case; values of one name are joined with commas.

    The parser of HTTP does the same with headers (RFC 9110, 5.3). Binary metadata is left out.
    """
    metadata: dict[str, str] = {}
    for name, value in context.invocation_metadata():
        if isinstance(value, str):
            metadata[name] = f"{metadata[name]}, {value}" if name in metadata else value
    return metadata


def abort(context: Any, error: ProblemError, metadata: Metadata) -> NoReturn:
    """End a call with an error; its headers become metadata."""
    fields = tuple((name.lower(), value) for name, value in error.headers)
    code = _CODES[HTTPStatus(error.status)]
    context.set_trailing_metadata(metadata + fields)
    context.abort(code, _sendable(error.detail))
    raise AssertionError  # `abort` always raises


def _sendable(detail: str) -> str:
    """As much of a detail as fits: what it quotes from a request may be of any length."""
    # It may also have a lone surrogate, which UTF-8 cannot encode.
    given = detail[: _MAX_DETAIL_BYTES + 1].encode(errors="replace").decode()
    fits = sum(size <= _MAX_DETAIL_BYTES for size in accumulate(map(_sent_bytes, given)))
    return given if fits == len(given) else f"{given[:fits]}..."


def _sent_bytes(character: str) -> int:
    """The bytes of a character in a detail: gRPC percent-encodes non-ASCII, as in `%C3%A9`."""
    is_plain = " " <= character <= "~" and character != "%"
    return 1 if is_plain else 3 * len(character.encode())


def address(peer: str) -> str:
    """The IP address in a peer's name, such as ipv4:127.0.0.1:5 or ipv6:%5B::1%5D:5."""
    kind, _, rest = peer.partition(":")
    address = rest.rpartition(":")[0]
    return address[3:-3] if kind == "ipv6" else address
