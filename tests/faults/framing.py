"""Requests by the byte, and a connection that reads them without a service."""

import socket
from contextlib import closing
from http import HTTPStatus
from typing import NamedTuple

import pytest

from serving.api.budget import Budget
from serving.errors import ProblemError
from serving.server.clock import Clock
from serving.server.connection import Connection, Limits
from serving.server.parser import Head, RequestParser

MAX_BODY_BYTES = 1_000


class Seen(NamedTuple):
    """A request as a parser read it."""

    method: str
    path: str  # percent-decoded
    query: str
    body: bytes


class Outcome(NamedTuple):
    requests: list[Seen]
    end: str  # "waits" for more, "closed" after the last request, or "refused"


class Refusals:
    """The owner of a connection: remembers the statuses of what was refused."""

    def __init__(self) -> None:
        self.statuses: list[HTTPStatus] = []

    def admit(self, _head: Head) -> None:
        pass

    def refusal(self, error: ProblemError, _head: Head | None, _peer: str) -> bytes:
        self.statuses.append(HTTPStatus(error.status))
        return b"refused"


class Ours:
    """A `Connection` and the socket of its client."""

    def __init__(self, listener: socket.socket) -> None:
        self.client = socket.create_connection(listener.getsockname())
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server, remote = listener.accept()
        self.refusals = Refusals()
        self.budget = Budget(1 << 30)
        limits = Limits(self.budget, Clock(), MAX_BODY_BYTES, 10.0, 75.0)
        self.connection = Connection(server, remote, self.refusals, limits)
        self.requests: list[Seen] = []
        self.end = "waits"

    def close(self) -> None:
        self.client.close()
        self.connection.close()

    def send(self, piece: bytes) -> None:
        """Let the connection read a piece, and answer every request that is whole with it."""
        if self.end != "waits":
            return
        self.client.sendall(piece)
        self.connection.receive()
        while self.connection.is_ready():
            head, body = self.connection.take()
            self.requests.append(Seen(head.method, head.path, head.query, body))
            self.connection.answer(b"", keep=head.keep_alive)
            if not head.keep_alive:
                self.end = "closed"
        if self.refusals.statuses:
            self.end = "refused"

    def outcome(self, pieces: list[bytes]) -> Outcome:
        for piece in pieces:
            if piece:
                self.send(piece)
        return Outcome(self.requests, self.end)


def ours_of(listener: socket.socket, pieces: list[bytes]) -> Outcome:
    with closing(Ours(listener)) as connected:
        return connected.outcome(pieces)


def refused(data: bytes) -> HTTPStatus:
    """The status with which the parser refuses what it is given; fails if it does not."""
    with pytest.raises(ProblemError) as caught:
        RequestParser(MAX_BODY_BYTES).feed(data)
    return HTTPStatus(caught.value.status)


class Sent(NamedTuple):
    seen: Seen
    raw: bytes


def with_length(number: int, body: bytes, zeros: int) -> Sent:
    head = f"POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: {'0' * zeros}{len(body)}\r\n\r\n"
    return Sent(Seen("POST", f"/{number}", "", body), head.encode() + body)


def without_body(number: int) -> Sent:
    head = f"GET /{number}?a=b HTTP/1.1\r\nHost: x\r\n\r\n"
    return Sent(Seen("GET", f"/{number}", "a=b", b""), head.encode())


def in_chunks(
    number: int, chunks: list[bytes], extension: bytes, zeros: int, trailers: list[bytes]
) -> Sent:
    head = f"POST /{number} HTTP/1.1\r\nHost: x\r\ntransfer-ENCODING:\tChunked \r\n\r\n"
    lines = [
        b"%0*x%b\r\n%b\r\n" % (zeros, len(chunk), extension, chunk) for chunk in chunks if chunk
    ]
    last = b"".join([b"0" * zeros, extension, b"\r\n", *trailers, b"\r\n"])
    seen = Seen("POST", f"/{number}", "", b"".join(chunks))
    return Sent(seen, head.encode() + b"".join(lines) + last)
