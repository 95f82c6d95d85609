"""One client connection: what it has sent, until that is a whole request, and what it is sent."""

import re
import socket
from http import HTTPStatus
from typing import Any

from gunicorn.http.parser import RequestParser
from gunicorn.workers.gthread import TConn

from serving.errors import problem_body

_FRAMING = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect):[ \t]*([^\r\n]*)", re.IGNORECASE
)
_CHUNK_SIZE = re.compile(rb"0*([0-9a-fA-F]{1,16})[ \t]*(?:;|\Z)")

MAX_HEAD_BYTES = 128 * 1024
# More than gunicorn's parser allows, so that it is what refuses a longer one.
_MAX_CHUNK_LINE_BYTES = 8 * 1024
NOTHING = memoryview(b"")


class Outbox:
    """A socket for gunicorn to write to that never blocks: the worker decides when to send."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

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

    def recv(self, _size: int) -> bytes:
        """Nothing: all that can be read was given to the parser."""
        return b""

    def setblocking(self, _flag: bool) -> None:
        """Do nothing: nothing here ever blocks."""


class Connection(TConn):
    """Collects bytes without a thread, so that a slow client costs nothing but memory.

    Attributes:
        sock: what gunicorn writes to.
        raw: the socket itself, not blocking.
        received: bytes that no request has taken yet.
        unsent: the rest of an answer that its client has not taken yet.
        keep: whether to wait for another request when that is sent.
        deadline: when to give up waiting for the client.
        was_answered: so that its client knows how long it is kept.
        too_large: the status to refuse the request with before it is whole.
        is_last: no request can follow, because this one's end is unknown or beyond the limit.
        abandoned: its request was answered for it, because it took too long.
        closing: nothing more is read from it but its end.
    """

    def __init__(
        self, cfg: Any, sock: socket.socket, client: Any, server: Any, max_body_bytes: int
    ) -> None:
        super().__init__(cfg, sock, client, server)
        self.raw = sock
        self.sock = Outbox()
        self.received = bytearray()
        self.unsent = NOTHING
        self.keep = True
        self.deadline = 0.0
        self.too_large: HTTPStatus | None = None
        self.was_answered = False
        self.is_last = False
        self.abandoned = False
        self.closing = False
        self.initialized = True  # gunicorn need not make a parser, nor wait for data
        self._max_body_bytes = max_body_bytes
        self._reset()

    def _reset(self) -> None:
        self._head_size = 0  # 0 until it is whole
        self._size: int | None = None  # of the request, None until it is known
        self._searched = 0
        self._chunk = 0  # where the next one begins
        self._in_trailers = False
        self.expects_continue = False

    def is_whole(self) -> bool:
        """Whether a request can be handled without waiting for its client.

        One that breaks the rules, or is declared to be longer than allowed, is whole with its
        head: the parser and the application refuse it by that.
        """
        if not self._head_size:
            self._read_head()
        if self._head_size and self._size is None:
            self._follow_chunks()
        return self._size is not None and len(self.received) >= self._size

    def _read_head(self) -> None:
        end = self.received.find(b"\r\n\r\n", self._searched)
        self._searched = max(0, len(self.received) - 3)
        if (len(self.received) if end < 0 else end) > MAX_HEAD_BYTES:
            self.too_large = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        elif end >= 0:
            self._head_size = self._chunk = self._searched = end + 4
            self._read_framing(self.received[: end + 4])

    def _read_framing(self, head: bytearray) -> None:
        """Find out where the request ends (RFC 9112, section 6.3)."""
        fields: dict[bytes, list[bytes]] = {}
        for name, value in _FRAMING.findall(head):
            fields.setdefault(name.lower(), []).append(value.strip(b" \t").lower())
        codings = fields.get(b"transfer-encoding", [])
        lengths = fields.get(b"content-length", [])
        self.expects_continue = fields.get(b"expect") == [b"100-continue"]
        if codings:
            last = codings[-1].rpartition(b",")[2].strip(b" \t")
            if last != b"chunked" or lengths:
                self._end_with(self._head_size)
            return
        digits = (lengths[0] if lengths else b"").lstrip(b"0") or b"0"
        # A longer number is beyond every limit, and int() would refuse a very long one.
        is_number = digits.isdigit() and len(digits) < 19
        if len(lengths) > 1 or not is_number or int(digits) > self._max_body_bytes:
            self._end_with(self._head_size)
        else:
            self._size = self._head_size + int(digits)

    def _follow_chunks(self) -> None:
        """Step from chunk to chunk, to the end of the trailers (RFC 9112, section 7.1)."""
        while not self._in_trailers:
            end = self.received.find(b"\r\n", max(self._chunk, self._searched))
            if end < 0:
                self._searched = max(self._chunk, len(self.received) - 1)
                if len(self.received) - self._chunk > _MAX_CHUNK_LINE_BYTES:
                    self._end_with(len(self.received))
                break
            size = _CHUNK_SIZE.match(self.received, self._chunk, end)
            if size is None:
                self._end_with(len(self.received))
                break
            if int(size[1], 16) == 0:
                self._in_trailers, self._searched = True, end
            else:
                self._chunk = end + 2 + int(size[1], 16) + 2
        if self._in_trailers:
            end = self.received.find(b"\r\n\r\n", self._searched)
            self._searched = max(self._searched, len(self.received) - 3)
            self._size = None if end < 0 else end + 4
        length = self._size or max(self._chunk, len(self.received))
        if length - self._head_size > self._max_body_bytes:
            self.too_large, self._size = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, None

    def _end_with(self, size: int) -> None:
        self._size = size
        self.is_last = True

    def missing(self) -> int:
        """How many bytes of the request are known to be missing."""
        return max(0, (self._size or self._chunk) - len(self.received))

    def take(self) -> bytes:
        """The whole request, off the bytes received."""
        request = bytes(self.received[: self._size])
        del self.received[: self._size]
        self._reset()
        return request

    def parse(self, request: bytes) -> None:
        """Give a request to gunicorn's parser: a new one, so that nothing is left of the last."""
        self.parser = RequestParser(self.cfg, [request], self.client)


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
