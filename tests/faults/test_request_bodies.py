"""Bodies by length and in chunks: their limits, what they hold of memory, and bad chunks."""

import socket
import tracemalloc
from http import HTTPStatus

import pytest

from serving.errors import ProblemError
from serving.server.parser import RequestParser
from tests.faults.framing import MAX_BODY_BYTES, Ours, in_chunks, ours_of, refused, with_length


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n\r\n",
        b"5_0\r\n\r\n",
        b"-1\r\n\r\n",
        b"0x1\r\n\r\n",
        b"\r\n\r\n",
        b"1 \r\nx\r\n0\r\n\r\n",
        b"1\r\nxy\r\n0\r\n\r\n",
        b"1\r\nx0\r\n\r\n\r\n",
        b"1\nx\n0\n\n",
        b"0" * 9_000,
        b"1" + b"0" * 16 + b"\r\n",
        b"1\r\nx\r\n;\r\n\r\n",
        b"1;a\rb\r\nx\r\n0\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nA: b\n\r\n\r\n",
    ],
)
def test_bad_chunks_are_refused(ours: Ours, body: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert ours.outcome([head, body]) == ([], "refused")


@pytest.mark.parametrize("digits", [4, 18, 19, 5_000])
def test_a_body_that_is_declared_too_long_is_not_waited_for(digits: int) -> None:
    head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {'9' * digits}\r\n\r\n".encode()
    too_long = HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.BAD_REQUEST
    assert refused(head) is too_long[digits > 18]


def test_a_body_of_the_greatest_length_is_read(ours: Ours) -> None:
    for sent in (
        with_length(1, b"x" * MAX_BODY_BYTES, 0),
        in_chunks(1, [b"x"] * MAX_BODY_BYTES, b"", 1, []),
    ):
        ours.send(sent.raw)
        assert ours.requests.pop() == sent.seen


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"fffff\r\n", b"fffffffffffffff\r\n"])
def test_chunks_beyond_the_limit_are_too_large(chunk: bytes) -> None:
    parser = RequestParser(MAX_BODY_BYTES)
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(ProblemError) as caught:
        any(parser.feed(chunk) for _ in range(MAX_BODY_BYTES + 1))
    assert caught.value.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@pytest.mark.parametrize("follows", [b"", b"GET /"])
def test_the_limit_of_a_body_in_chunks_does_not_depend_on_how_it_arrives(
    listener: socket.socket, follows: bytes
) -> None:
    sent = in_chunks(1, [b"x"] * (MAX_BODY_BYTES // 2), b"", 1, [])
    head = sent.raw.index(b"\r\n\r\n") + 4
    whole = ours_of(listener, [sent.raw + follows])
    assert ours_of(listener, [sent.raw[:head], sent.raw[head:] + follows]) == whole


def test_a_body_in_small_chunks_takes_no_more_memory_than_its_length() -> None:
    size = 256 * 1024
    parser = RequestParser(8 * size)
    parser.feed(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"2\r\nab\r\n" * 1024
    tracemalloc.start()
    try:
        for _ in range(size // 2048):
            parser.feed(piece)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * size
    assert held <= 2 * parser.held_bytes
