"""What follows on a connection, or waits on others, costs nobody else's."""

import gzip
import socket
import time
from contextlib import ExitStack

import pytest

from serving.api.budget import Budget
from serving.server.balancing import ConnectionBalancer
from serving.server.clock import Clock
from serving.server.connection import Limits
from serving.server.parser import RequestParser
from serving.server.pool import ConnectionPool
from tests.conftest import Service
from tests.faults.framing import Refusals
from tests.faults.wire import BODY, HEALTH, Wire, children, post

LARGE = b" " * (256 * 1024) + BODY
PACKED = post(gzip.compress(BODY), "Content-Encoding: gzip")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", 404),
        (PACKED, 200),
        (post(LARGE), 200),
    ],
    ids=["no decision", "packed", "large"],
)
def test_pipelined_requests_for_threads_are_answered_in_turn(
    single: Service, request_: bytes, status: int
) -> None:
    workers = children(single.process.pid)
    with Wire(single.url) as wire:
        wire.send(request_ * 3 + post())
        assert [wire.answer().status for _ in range(4)] == [status, status, status, 200]
    assert children(single.process.pid) == workers


def test_connections_that_hold_nothing_outlive_requests_that_exceed_the_budget(
    listener: socket.socket,
) -> None:
    listener.setblocking(False)
    limits = Limits(Budget(1_000), Clock(), 10_000, 30.0, 30.0)
    pool = ConnectionPool(listener, ConnectionBalancer(1), 0, Refusals(), limits)
    with ExitStack() as stack:
        address = listener.getsockname()
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
        while len(pool) < 2:
            pool.poll(1.0)
        clients[0].sendall(post(b"x" * 2_000))
        while not pool.ready:
            pool.poll(1.0)
        (handled,) = pool.ready
        handled.take()
        pool.ignore(handled)
        assert limits.budget.is_exceeded()
        pool.relieve()
        assert [conn.is_closed() for conn in pool.all()] == [False, False]
        for conn in pool.all():
            conn.close()


def test_empty_lines_before_a_request_take_a_time_that_grows_with_their_length() -> None:
    parser = RequestParser(max_body_bytes=0)
    started = time.monotonic()
    assert parser.feed(b"\r\n" * 1_000_000) is None
    assert parser.feed(HEALTH) is not None
    assert time.monotonic() - started < 5  # one copy for each would take minutes
