"""One client connection: what it has sent, until that is a whole request, and what it is sent."""

import re
import socket
from http import HTTPStatus
from typing import Any

from gunicorn.workers.gthread import TConn

from serving.errors import problem_body

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_LAST_CHUNK = re.compile(rb"\r\n0+(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n\Z")
_EXPECTS = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)

# More than gunicorn allows for a head (its limits are told by its own parser).
MAX_HEAD_BYTES = 128 * 1024 + 1
_TAIL_BYTES = 8 * 1024


class Outbox:
    """A socket for gunicorn to write to that never blocks: the worker decides when to send."""

    def __init__(self, sock: socket.socket) -> None:
        self.raw = sock
        self._parts: list[bytes] = []
        self._timeout: float | None = None

    def sendall(self, data: bytes) -> None:
        """Keep what is to be sent."""
        self._parts.append(bytes(data))

    def send(self, data: bytes) -> int:
        """Keep what is to be sent."""
        self.sendall(data)
        return len(data)

    def take(self) -> bytes:
        """What is to be sent now."""
        parts, self._parts = self._parts, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def recv(self, size: int) -> bytes:
        """Wait for more of a request that was handed on before it was whole."""
        self.raw.settimeout(self._timeout)
        try:
            return self.raw.recv(size)
        finally:
            self.raw.setblocking(False)

    def gettimeout(self) -> float | None:
        """How long `recv` may wait, in seconds."""
        return self._timeout

    def settimeout(self, seconds: float | None) -> None:
        """Set how long `recv` may wait, in seconds."""
        self._timeout = seconds

    def setblocking(self, _flag: bool) -> None:
        """Do nothing: the socket below never blocks."""


class Connection(TConn):
    """Collects bytes without a thread, so that a slow client costs nothing but memory.

    Attributes:
        sock: what gunicorn writes to.
        raw: the socket itself, not blocking.
        received: bytes that no request has taken yet.
        deadline: when to give up waiting for the next request, or for the rest of one.
        is_sized: the request's head tells where it ends, within the limit.
        abandoned: its request was answered for it, because it took too long.
        closing: nothing more is read from it but its end.
    """

    def __init__(
        self, cfg: Any, sock: socket.socket, client: Any, server: Any, max_body_bytes: int
    ) -> None:
        super().__init__(cfg, sock, client, server)
        self.raw = sock
        self.sock = Outbox(sock)
        self.received = bytearray()
        self.deadline = 0.0
        self.abandoned = False
        self.closing = False
        self.data_ready = True  # gunicorn need not wait for any
        self._max_body_bytes = max_body_bytes
        self._reset()

    def _reset(self) -> None:
        self._head_size = 0  # 0 until it is whole
        self._size: int | None = None  # of the request, None where chunks tell it
        self._searched = 0
        self.is_sized = False
        self.expects_continue = False

    def is_whole(self) -> bool:
        """Whether a request can be handled without waiting for its client.

        What breaks the rules or the limits is whole as well: the parser and the application
        refuse it by its head.
        """
        if not self._head_size and not self._read_head():
            return len(self.received) >= MAX_HEAD_BYTES
        if self._size is not None:
            return len(self.received) >= self._size
        if len(self.received) - self._head_size > self._max_body_bytes:
            return True
        start = max(self._head_size - 2, len(self.received) - _TAIL_BYTES)
        return _LAST_CHUNK.search(self.received, start) is not None

    def _read_head(self) -> bool:
        end = self.received.find(b"\r\n\r\n", self._searched)
        if end < 0:
            self._searched = max(0, len(self.received) - 3)
            return False
        self._head_size = self._size = end + 4
        head = self.received[: self._head_size]
        if _CHUNKED.search(head):
            self._size = None
        elif found := _LENGTH.search(head):
            length = int(found[1])
            self.is_sized = length <= self._max_body_bytes
            if self.is_sized:
                self._size += length
        else:
            self.is_sized = True
        self.expects_continue = _EXPECTS.search(head) is not None
        return True

    def missing(self) -> int:
        """How many bytes of the request are known to be missing."""
        return 0 if self._size is None else max(0, self._size - len(self.received))

    def take(self) -> bytes:
        """The whole request, off the bytes received."""
        size = len(self.received) if self._size is None else self._size
        request = bytes(self.received[:size])
        del self.received[:size]
        self._reset()
        return request


def problem_response(status: int, detail: str, headers: str = "") -> bytes:
    """A whole HTTP response with a problem."""
    body = problem_body(status, detail)
    head = (
        f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: application/problem+json\r\n{headers}"
        "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode("ascii") + body


def write_problem(sock: Outbox, status: int, _reason: str, detail: str) -> None:
    """Answer a request that never reached the application, and promise to close."""
    detail = detail or HTTPStatus(status).phrase
    sock.sendall(problem_response(status, detail, "Connection: close\r\n"))
