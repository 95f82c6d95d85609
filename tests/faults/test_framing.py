"""Where a request ends does not depend on how its bytes arrive."""

import itertools
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import NamedTuple

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from hypothesis import given
from hypothesis import strategies as st

from serving.server.connection import MAX_HEAD_BYTES, Connection

MAX_BODY_BYTES = 1_000

Connect = Callable[[], Connection]


class Sent(NamedTuple):
    path: str
    body: bytes
    raw: bytes


@pytest.fixture(scope="module")
def connect() -> Iterator[Connect]:
    ours, theirs = socket.socketpair()
    config = Config()
    with ours, theirs:
        yield lambda: Connection(config, ours, ("127.0.0.1", 1), ("127.0.0.1", 2), MAX_BODY_BYTES)


def received(conn: Connection, pieces: list[bytes]) -> list[bytes]:
    """The requests that come out of the pieces."""
    requests = []
    for piece in pieces:
        conn.received += piece
        while conn.is_whole():
            requests.append(conn.take())
    return requests


def parsed(conn: Connection, request: bytes) -> Sent:
    conn.parse(request)
    message = next(conn.parser)
    return Sent(message.path, message.body.read(), request)


def with_length(number: int, body: bytes, zeros: int) -> Sent:
    head = f"POST /{number} HTTP/1.1\r\nHost: x\r\nContent-Length: {'0' * zeros}{len(body)}\r\n\r\n"
    return Sent(f"/{number}", body, head.encode() + body)


def without_body(number: int) -> Sent:
    return Sent(f"/{number}", b"", f"GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


def in_chunks(
    number: int, chunks: list[bytes], extension: bytes, zeros: int, trailers: list[bytes]
) -> Sent:
    head = f"POST /{number} HTTP/1.1\r\nHost: x\r\ntransfer-ENCODING:\tChunked \r\n\r\n"
    lines = [
        b"%0*x%b\r\n%b\r\n" % (zeros, len(chunk), extension, chunk) for chunk in chunks if chunk
    ]
    last = b"".join([b"0" * zeros, extension, b"\r\n", *trailers, b"\r\n"])
    return Sent(f"/{number}", b"".join(chunks), head.encode() + b"".join(lines) + last)


# Bodies that look like what ends a request, or begins one.
bodies = st.sampled_from([b"\r\n0\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]) | st.binary(
    max_size=40
)
numbers = st.integers(0, 9)
requests = st.one_of(
    st.builds(with_length, numbers, bodies, st.sampled_from([0, 1, 30])),
    st.builds(without_body, numbers),
    st.builds(
        in_chunks,
        numbers,
        st.lists(bodies, max_size=4),
        st.sampled_from([b"", b";a", b' ;a="b"']),
        st.sampled_from([1, 5, 30]),
        st.lists(st.sampled_from([b"X: 0\r\n", b"Y: z\r\n"]), max_size=2),
    ),
)


@given(st.lists(requests, max_size=5), st.data())
def test_any_split_of_any_requests_gives_the_same_requests(
    connect: Connect, sent: list[Sent], data: st.DataObject
) -> None:
    raw = b"".join(request.raw for request in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    bounds = [0, *cuts, len(raw)]
    pieces = [raw[start:stop] for start, stop in itertools.pairwise(bounds)]
    conn = connect()
    assert [parsed(conn, request) for request in received(conn, pieces)] == sent
    assert not conn.received
    assert not conn.is_last


@given(requests)
def test_a_request_in_single_bytes_is_whole_with_its_last_byte(
    connect: Connect, sent: Sent
) -> None:
    conn = connect()
    assert received(conn, [sent.raw[i : i + 1] for i in range(len(sent.raw) - 1)]) == []
    assert received(conn, [sent.raw[-1:]]) == [sent.raw]


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 5",
        "Content-Length: +5",
        "Content-Length: -5",
        "Content-Length: 0x5",
        "Content-Length: 5_0",
        "Content-Length: \u00b2",
        "Content-Length: five",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        "A: b\r\n Content-Length: 5",
        "A: b\nContent-Length: 5",
        "A: b\rContent-Length: 5",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_by_its_head(
    connect: Connect, fields: str
) -> None:
    conn = connect()
    head = f"POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode("latin-1")
    conn.received += head + b"0\r\n\r\n"
    assert conn.is_whole()
    request = conn.take()
    assert request == head
    with pytest.raises(ParseException):
        parsed(conn, request)


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n\r\n",
        b"5_0\r\n\r\n",
        b"-1\r\n\r\n",
        b"\r\n\r\n",
        b"1 \r\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"1\r\nx0\r\n\r\n\r\n",
        b"0" * 9_000,
        b"1\r\nx\r\n;\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_bad_chunks_are_refused(connect: Connect, body: bytes) -> None:
    conn = connect()
    conn.received += b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    if conn.is_whole():
        with pytest.raises(ParseException):
            parsed(conn, conn.take())
    else:
        assert conn.too_large is HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize("digits", [4, 18, 19, 5_000])
def test_a_body_that_is_declared_too_long_is_not_waited_for(connect: Connect, digits: int) -> None:
    conn = connect()
    head = f"POST / HTTP/1.1\r\nContent-Length: {'9' * digits}\r\n\r\n".encode()
    assert received(conn, [head]) == [head]
    assert conn.is_last


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"fffff\r\n", b"ffffffffffffffff\r\n"])
def test_chunks_beyond_the_limit_are_too_large(connect: Connect, chunk: bytes) -> None:
    conn = connect()
    conn.received += b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(MAX_BODY_BYTES):
        assert not conn.is_whole()
        if conn.too_large is not None:
            break
        conn.received += chunk
    assert conn.too_large is HTTPStatus.REQUEST_ENTITY_TOO_LARGE


def test_a_head_beyond_the_limit_is_too_large_whatever_follows(connect: Connect) -> None:
    for end in (b"", b"\r\n\r\n"):
        conn = connect()
        conn.received += b"GET / HTTP/1.1\r\nA: " + b"x" * MAX_HEAD_BYTES + end
        assert not conn.is_whole()
        assert conn.too_large is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


@pytest.mark.parametrize(("value", "expects"), [("100-continue", True), ("200-ok", False)])
def test_a_client_that_waits_to_be_told_to_go_on_is_known(
    connect: Connect, value: str, expects: bool
) -> None:
    conn = connect()
    conn.received += f"POST / HTTP/1.1\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\n".encode()
    assert not conn.is_whole()
    assert conn.expects_continue == expects
    conn.received += b"hello"
    assert conn.is_whole()
