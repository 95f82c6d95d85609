"""Clients that are slow, or half gone, cost the others nothing."""

import resource
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from serving.client import PolicyClient
from serving.server.pool import MAX_CONNECTIONS
from tests.conftest import Trained, running_service, wait_until
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.faults.wire import HEALTH, PICTURE, Wire, children, post

CLIENT_TIMEOUT = 4.0


@contextmanager
def trickling(wires: list[Wire], data: bytes) -> Iterator[None]:
    """A byte at a time on every connection, more often than once a second."""
    done = threading.Event()

    def trickle() -> None:
        for place in range(len(data)):
            for wire in wires:
                try:
                    wire.socket.send(data[place : place + 1])
                except OSError:  # it is closed, as it should be
                    continue
            if done.wait(0.5):
                break

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_new_connection_has_the_whole_client_timeout(trained: Trained, tmp_path: Path) -> None:
    options = ("--workers", "1", "--client-timeout", "2")
    with running_service(trained.models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        for idle in (0.2, 0.4, 0.6, 0.8, 1.0):  # overdue connections are closed once a second
            time.sleep(idle)
            with Wire(service.url) as wire:
                time.sleep(1.5)
                assert wire.ask(HEALTH).status == 200


@pytest.mark.long
def test_slow_clients_are_shown_out_and_others_do_not_notice(
    trained: Trained, tmp_path: Path, tell: Tell
) -> None:
    options = ("--workers", "1", "--client-timeout", str(CLIENT_TIMEOUT))
    with ExitStack() as stack:
        service = stack.enter_context(running_service(trained.models, tmp_path / "log", *options))
        PolicyClient(service.url).wait_until_ready(60)
        workers = children(service.process.pid)

        def connect(count: int, first: bytes, receive_buffer: int | None = None) -> list[Wire]:
            wires = [stack.enter_context(Wire(service.url, receive_buffer)) for _ in range(count)]
            return [wire.send(first) for wire in wires]

        started = time.monotonic()
        silent = connect(200, b"")
        heads = connect(50, b"")
        bodies = connect(50, post(b"", "Content-Length: 1000", length=False))
        chunks = connect(50, post(b"", "Transfer-Encoding: chunked", length=False))
        declared = connect(50, post(b"", "Content-Length: 99999999999", length=False))
        # Their answers are larger than what the kernel keeps for them.
        deaf = connect(50, PICTURE * 100, 4096)
        stack.enter_context(trickling(heads, post()))
        stack.enter_context(trickling(bodies, b" " * 1000))
        stack.enter_context(trickling(chunks, b"1\r\nx\r\n" * 100))
        with Load(service.url, 4) as load:
            # Each kind, to its end.
            assert all(wire.ended() for wire in silent)
            for wire in (*heads, *bodies, *chunks):
                assert wire.answer().status == 408
                assert wire.ended()
            for wire in declared:
                assert wire.answer().status == 413
            wait_until(lambda: all(is_gone(wire) for wire in deaf))
            seconds = time.monotonic() - started
        outcome = load.outcome
        tell(f"450 slow clients for {seconds:.1f} s; meanwhile {outcome}")
        assert set(outcome.statuses) == {200}
        assert outcome.statuses[200] == outcome.sent > 0
        assert not outcome.lost_ports
        assert children(service.process.pid) == workers
        with Wire(service.url) as wire:
            assert wire.ask(HEALTH).status == 200


@pytest.mark.long
def test_more_silent_clients_than_a_worker_has_room_for_let_others_in(
    trained: Trained, tmp_path: Path
) -> None:
    count = MAX_CONNECTIONS + 300
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 2 * count), most))
    options = ("--workers", "1", "--client-timeout", "1000")
    with ExitStack() as stack:
        service = stack.enter_context(running_service(trained.models, tmp_path / "log", *options))
        PolicyClient(service.url).wait_until_ready(60)
        kept = stack.enter_context(Wire(service.url))
        assert kept.ask(post()).status == 200
        for _ in range(count):
            stack.enter_context(Wire(service.url))
        for _ in range(10):
            with Wire(service.url) as wire:
                assert wire.ask(post()).status == 200
        # Who has asked once is not shown out for who has not.
        assert kept.ask(post()).status == 200


def is_gone(wire: Wire) -> bool:
    """Whether the service has given a connection up: what comes next is never answered."""
    try:
        wire.socket.send(b"x")
    except OSError:
        return True
    return False
