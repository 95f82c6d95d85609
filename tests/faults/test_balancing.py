"""New connections are balanced among the workers, and none waits for one that is stuck."""

import os
import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.client import PolicyClient
from serving.server.balancing import DELAY_SECONDS, MAX_DELAY_SECONDS, ConnectionBalancer
from tests.conftest import Service, Trained, pause, running_service, wait_until
from tests.faults.wire import HEALTH, Wire, children, client_ports

WORKERS = 3


@pytest.fixture(scope="module")
def service(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    log = tmp_path_factory.mktemp("balancing") / "log"
    with running_service(trained.models, log, "--workers", str(WORKERS)) as service:
        PolicyClient(service.url).wait_until_ready(60)

        def all_accept_some() -> bool:
            with ExitStack() as stack:
                found = connections_of_workers(service, connect(service, 10 * WORKERS, stack))
                return len(found) == WORKERS and min(found) > 0

        wait_until(all_accept_some)
        yield service


def connections_of_workers(service: Service, wires: list[Wire]) -> list[int]:
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


def test_connections_are_balanced(service: Service) -> None:
    # A worker that the machine lets wait for long misses some, but not every time.
    for _ in range(10):
        with ExitStack() as stack:
            wires = [stack.enter_context(Wire(service.url)) for _ in range(60)]
            assert all(wire.ask(HEALTH).status == 200 for wire in wires)
            found = connections_of_workers(service, wires)
        assert sum(found) == 60
        if min(found) >= 18:
            break
    assert min(found) >= 18


def test_connections_that_are_busy_from_the_first_moment_are_balanced(service: Service) -> None:
    # Each worker finds its first client busy before it has taken its share of the others.
    for _ in range(10):
        with ExitStack() as stack, selectors.DefaultSelector() as selector:
            wires = [stack.enter_context(Wire(service.url)) for _ in range(4 * WORKERS)]
            for wire in wires:
                wire.socket.sendall(HEALTH)
                selector.register(wire.socket, selectors.EVENT_READ)
            for _ in range(200):
                for key, _events in selector.select(1.0):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    assert sock.recv(4096).startswith(b"HTTP/1.1 200")
                    sock.sendall(HEALTH)
            found = connections_of_workers(service, wires)
        if min(found) >= 3:
            break
    assert min(found) >= 3


def test_a_worker_whose_clients_leave_gets_the_next_ones(service: Service) -> None:
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
        assert (
            connections_of_workers(service, connect(service, len(gone), stack))[0] > len(gone) / 2
        )


def test_connections_are_taken_while_the_worker_with_the_fewest_is_stuck(service: Service) -> None:
    with ExitStack() as stack:
        stuck = children(service.process.pid)[0]
        pause(stuck)
        stack.callback(os.kill, stuck, signal.SIGCONT)
        assert connections_of_workers(service, connect(service, 20, stack))[0] == 0


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
        assert sum(connections_of_workers(service, connect(service, 20, all_))) == 20


def test_a_connection_is_left_to_a_worker_with_fewer_but_not_for_long() -> None:
    balancer = ConnectionBalancer(2)
    balancer.report(0, 5)
    assert balancer.accept_delay(5, now=10.0) == 0  # nobody else is there
    balancer.report(1, 4)
    assert balancer.accept_delay(4, now=10.0) == 0
    assert balancer.accept_delay(5, now=10.0) == DELAY_SECONDS
    assert balancer.accept_delay(5, now=10.0 + 2 * DELAY_SECONDS) == DELAY_SECONDS
    assert balancer.accept_delay(5, now=10.0 + MAX_DELAY_SECONDS) == 0
    assert balancer.accept_delay(5, now=11.0) == DELAY_SECONDS  # another one, a while later
    balancer.withdraw(1)
    assert balancer.accept_delay(5, now=12.0) == 0


def test_small_differences_between_large_numbers_do_not_matter() -> None:
    balancer = ConnectionBalancer(2)
    balancer.report(0, 90)
    balancer.report(1, 80)
    assert balancer.accept_delay(90, now=10.0) == 0
    assert balancer.accept_delay(91, now=10.0) > 0


def test_a_worker_without_a_slot_accepts_at_once_and_is_ignored() -> None:
    balancer = ConnectionBalancer(1)
    balancer.report(0, 3)
    balancer.report(1, 0)
    assert balancer.accept_delay(3, now=10.0) == 0
    balancer.withdraw(1)
    balancer.withdraw(0)
    assert balancer.accept_delay(9, now=10.0) == 0
