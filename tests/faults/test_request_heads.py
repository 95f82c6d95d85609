"""Heads that are refused: what could be read in two ways, what is not HTTP/1, what is too long."""

from http import HTTPStatus

import pytest

from serving.server.parser import MAX_HEAD_BYTES, RequestParser
from tests.faults.framing import Ours, refused


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
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Content-Length : 5",
        "Transfer-Encoding : chunked",
        "A: b\r\n Content-Length: 5",
        "A: b\nContent-Length: 5",
        "A: b\rContent-Length: 5",
        "A: b\0",
        ": b",
        "Host: x",
        "Host: a..b",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_by_its_head(ours: Ours, fields: str) -> None:
    # Two of "Host: x" are one too many, and a wrong one is beside a good one too.
    head = f"POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode("latin-1")
    assert ours.outcome([head, b"0\r\n\r\n"]) == ([], "refused")
    assert ours.refusals.statuses[0] in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_IMPLEMENTED)


@pytest.mark.parametrize(
    "head",
    [
        "GET /\r\n\r\n",
        "GET / HTTP/0.9\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: x\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\r\nHost: x\n\n",
        "GET / HTTP/1.1\rHost: x\r\r\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a..b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x y\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
        "GET /\t HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /\u00e9 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET :// HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET -http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\n\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\0GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_not_http_1_is_refused(ours: Ours, head: str) -> None:
    assert ours.outcome([head.encode("latin-1")]) == ([], "refused")


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"A: " + b"x" * 8_190, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (b"A: b\r\n" * 101, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
        (b"A: " + b"x" * MAX_HEAD_BYTES, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    ],
)
def test_a_head_beyond_the_limits_is_too_large_whatever_follows(
    fields: bytes, status: HTTPStatus, end: bytes
) -> None:
    assert refused(b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + end) is status


def test_a_target_beyond_the_limit_is_too_long() -> None:
    line = b"GET /" + b"x" * 4_094
    assert refused(line) is refused(line + b" HTTP/1.1\r\n") is HTTPStatus.REQUEST_URI_TOO_LONG


@pytest.mark.parametrize(
    ("version", "value", "expects"),
    [("1.1", "100-continue", True), ("1.1", "100-Continue", True), ("1.0", "100-continue", False)],
)
def test_a_client_that_waits_to_be_told_to_go_on_is_known(
    ours: Ours, version: str, value: str, expects: bool
) -> None:
    head = f"POST / HTTP/{version}\r\nHost: x\r\nExpect: {value}\r\nContent-Length: 5\r\n\r\n"
    ours.send(head.encode())
    assert ours.requests == []
    ours.client.setblocking(False)
    if expects:
        assert ours.client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    else:
        with pytest.raises(BlockingIOError):
            ours.client.recv(100)
    ours.send(b"hello")
    assert [request.body for request in ours.requests] == [b"hello"]


def test_another_expectation_is_refused() -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 200-ok\r\nContent-Length: 5\r\n\r\n"
    assert refused(head) is HTTPStatus.EXPECTATION_FAILED


def test_a_connection_that_was_refused_has_time_to_read_why(ours: Ours) -> None:
    assert ours.connection.eviction_order() is not None
    assert ours.outcome([b"GET x\r\n\r\n"]) == ([], "refused")
    assert ours.connection.eviction_order() is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/policy/act", "/act"), ("/policyact", "/policyact"), ("/policy", "/policy")],
)
def test_the_root_path_is_taken_away_where_it_is_whole_parts_of_a_path(
    path: str, expected: str
) -> None:
    sent = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    received = RequestParser(0, "/policy").feed(sent)
    assert received is not None
    assert received.head.path == expected
