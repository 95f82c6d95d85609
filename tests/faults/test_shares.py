"""New connections are shared out among the workers, and none waits for one that is stuck."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.client import PolicyClient
from serving.server.balancing import PATIENCE_SECONDS, PAUSE_SECONDS, Shares
from tests.conftest import Service, Trained, running_service, wait_until
from tests.faults.wire import HEALTH, Wire, children, client_ports

WORKERS = 3


@pytest.fixture(scope="module")
def service(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("shares") / "log"
    with running_service(trained.models, log, "--workers", str(WORKERS)) as service:
        PolicyClient(service.url).wait_until_ready(60)

        def all_take_some() -> bool:
            with ExitStack() as stack:
                found = shares(service, connect(service, 10 * WORKERS, stack))
                return len(found) == WORKERS and min(found) > 0

        wait_until(all_take_some)
        yield service


def shares(service: Service, wires: list[Wire]) -> list[int]:
    """How many of the connections each worker has."""
    ports = {wire.socket.getsockname()[1] for wire in wires}
    return [len(client_ports(pid) & ports) for pid in children(service.process.pid)]


def connect(service: Service, count: int, stack: ExitStack) -> list[Wire]:
    """New connections, each of which has got an answer before the next is made."""
    wires = []
    for _ in range(count):
        wires.append(stack.enter_context(Wire(service.url)))
        assert wires[-1].ask(HEALTH).status == 200
    return wires


def test_connections_are_shared_out(service: Service) -> None:
    # A worker that the machine lets wait for long misses some, but not every time.
    for _ in range(10):
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(service.url)) for _ in range(60)]
            assert all(wire.ask(HEALTH).status == 200 for wire in wires)
            found = shares(service, wires)
        assert sum(found) == 60
        if min(found) >= 18:
            break
    assert min(found) >= 18


def test_who_leaves_makes_room_for_others(service: Service) -> None:
    with ExitStack() as stack:
        wires = connect(service, 30, stack)
        first = children(service.process.pid)[0]
        ports = client_ports(first)
        gone = {wire.socket.getsockname()[1]: wire for wire in wires}
        gone = {port: wire for port, wire in gone.items() if port in ports}
        for wire in gone.values():
            wire.socket.close()
        wait_until(lambda: not client_ports(first) & gone.keys())
        # A third each, had it not fewer than the others.
        assert shares(service, connect(service, len(gone), stack))[0] > len(gone) / 2


def test_connections_are_taken_while_the_worker_with_the_fewest_is_stuck(service: Service) -> None:
    with ExitStack() as stack:
        stuck = children(service.process.pid)[0]
        os.kill(stuck, signal.SIGSTOP)
        stack.callback(os.kill, stuck, signal.SIGCONT)
        assert shares(service, connect(service, 20, stack))[0] == 0


def test_a_worker_that_is_killed_is_waited_for_no_longer(trained: Trained, tmp_path: Path) -> None:
    options = ("--workers", "2")
    with (
        running_service(trained.models, tmp_path / "log", *options) as service,
        ExitStack() as all_,
    ):
        PolicyClient(service.url).wait_until_ready(60)
        wait_until(lambda: len(children(service.process.pid)) == 2)
        before = children(service.process.pid)
        os.kill(before[0], signal.SIGKILL)
        wait_until(
            lambda: (
                len(children(service.process.pid)) == 2
                and before[0] not in children(service.process.pid)
            ),
        )
        assert sum(shares(service, connect(service, 20, all_))) == 20


def test_a_connection_is_left_to_whoever_has_fewer_but_not_for_long() -> None:
    counts = Shares(2)
    counts.tell(0, 5)
    assert counts.pause(5, now=10.0) == 0  # nobody else is there
    counts.tell(1, 4)
    assert counts.pause(4, now=10.0) == 0
    assert counts.pause(5, now=10.0) == PAUSE_SECONDS
    assert counts.pause(5, now=10.0 + 2 * PAUSE_SECONDS) == PAUSE_SECONDS
    assert counts.pause(5, now=10.0 + PATIENCE_SECONDS) == 0
    assert counts.pause(5, now=11.0) == PAUSE_SECONDS  # another one, a while later
    counts.forget(1)
    assert counts.pause(5, now=12.0) == 0


def test_small_differences_between_large_numbers_do_not_matter() -> None:
    counts = Shares(2)
    counts.tell(0, 90)
    counts.tell(1, 80)
    assert counts.pause(90, now=10.0) == 0
    assert counts.pause(91, now=10.0) > 0


def test_a_worker_beyond_the_room_that_there_is_takes_what_comes_and_is_not_waited_for() -> None:
    counts = Shares(1)
    counts.tell(0, 3)
    counts.tell(1, 0)
    assert counts.pause(3, now=10.0) == 0
    counts.forget(1)
    counts.forget(0)
    assert counts.pause(9, now=10.0) == 0
