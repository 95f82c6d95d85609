"""What happens to a service in its life costs no request, but those that a killed worker held."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.client import PolicyClient
from serving.server.connection import LINGER_SECONDS
from tests.artefacts import publish
from tests.conftest import Service, Trained, pause, run, running_service, wait_until
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.faults.mounts import with_mounts
from tests.faults.wire import BODY, HEALTH, PICTURE, Wire, children, client_ports, metric, post

WORKERS = 2
OLD_KEY = "0123456789abcdef"
NEW_KEY = "fedcba9876543210"


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    return shutil.copytree(trained.models, tmp_path / "models")


@pytest.fixture
def service(models: Path, tmp_path: Path) -> Iterator[Service]:
    options = ("--workers", str(WORKERS), "--poll-seconds", "0.1")
    with running_service(models, tmp_path / "log", *options) as running:
        PolicyClient(running.url).wait_until_ready(60)
        yield running


def wait_until_all_serve(service: Service, version: int) -> None:
    served = [float(version)] * WORKERS
    wait_until(lambda: list(metric(service.url, "policy_served_version").values()) == served)


@pytest.mark.long
def test_swaps_a_killed_worker_and_the_end_lose_nothing_but_what_that_worker_held(
    service: Service, models: Path, trained: Trained, tell: Tell
) -> None:
    wait_until_all_serve(service, 1)
    swaps = 0

    def swap(version: int, *command: str) -> None:
        nonlocal swaps
        if command:
            finished = run("serving", *command, "--models", str(models))
            assert finished.returncode == 0, finished.stderr
        else:
            publish(trained.model_dir, models / "cartpole" / str(version))
        wait_until_all_serve(service, version)
        swaps += 1

    with Load(service.url, 8) as one, Load(service.url, 8) as other:
        for version in range(2, 9):
            swap(version)
        swap(7, "rollback")
        swap(5, "promote", "5")
        killed, _ = children(service.process.pid)
        pause(killed)
        held = client_ports(killed)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in (now := children(service.process.pid)) and len(now) == 2)
        swap(8, "promote")
        for version in range(9, 19):
            swap(version)
        wait_until(lambda: sum(metric(service.url, "policy_http_requests_total").values()) > 1e5)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0
    outcomes = [one.outcome, other.outcome]
    for outcome in outcomes:
        tell(str(outcome))
    lost = [port for outcome in outcomes for port in outcome.lost_ports]
    sent = sum(outcome.sent for outcome in outcomes)
    tell(
        f"{sent} requests through {swaps} swaps, a killed worker that held {len(held)} connections"
        f" and a drain: {len(lost)} lost"
    )
    assert sent > 100_000
    assert swaps == 20
    assert set(lost) <= held
    assert len(lost) == len(set(lost))  # one request each
    for outcome in outcomes:
        assert set(outcome.statuses) == {200}
        assert outcome.statuses[200] == sum(outcome.versions.values())
        assert outcome.sent == outcome.statuses[200] + len(outcome.lost_ports)
        assert max(outcome.versions) == 18
        assert (outcome.unused, outcome.wrong) == (0, [])


def test_what_was_begun_before_the_end_is_finished(models: Path, tmp_path: Path) -> None:
    options = ("--workers", "1", "--client-timeout", "25")
    request = post()
    with running_service(models, tmp_path / "log", *options) as service, ExitStack() as stack:
        PolicyClient(service.url).wait_until_ready(60)
        half, deaf = [stack.enter_context(Wire(service.url, 4096)) for _ in range(2)]
        for wire in (half, deaf):
            assert wire.ask(request).status == 200
        half.send(request[:50])
        deaf.send(PICTURE)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not takes_connections(service))
        assert half.ask(request[50:]).fields["connection"] == "close"
        assert half.ended()
        assert len(deaf.answer().body) > 10_000
        assert service.process.wait(60) == 0


def test_a_service_that_ends_is_not_ready_while_it_still_answers(
    models: Path, tmp_path: Path
) -> None:
    # So that a load balancer has turned to other services when idle connections are closed.
    with running_service(models, tmp_path / "log") as service:
        PolicyClient(service.url).wait_until_ready(60)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "Handling signal: term" in (tmp_path / "log").read_text())
        time.sleep(0.5)
        for path in ("/health/ready", "/v2/health/ready"):
            with Wire(service.url) as wire:
                answer = wire.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.status == 503
            assert b"the service is shutting down" in answer.body
        for request in (HEALTH, post()):
            with Wire(service.url) as wire:
                assert wire.ask(request).status == 200
        assert service.process.wait(60) == 0


def test_a_worker_that_a_reload_replaces_leaves_the_service_ready(
    models: Path, tmp_path: Path
) -> None:
    request = b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n"
    with running_service(models, tmp_path / "log", "--workers", "1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        with Wire(service.url) as wire:
            assert wire.ask(request).status == 200
            (replaced,) = children(service.process.pid)
            os.kill(replaced, signal.SIGTERM)
            time.sleep(0.5)
            answer = wire.ask(request)
        assert (answer.status, answer.fields["connection"]) == (200, "close")


def takes_connections(service: Service) -> bool:
    try:
        Wire(service.url).socket.close()
    except OSError:
        return False
    return True


@pytest.mark.long
def test_workers_end_with_their_master(models: Path, tmp_path: Path) -> None:
    # What the master cannot clean up goes with its own /dev/shm.
    within = with_mounts("mount -t tmpfs none /dev/shm")
    with running_service(models, tmp_path / "log", within=within) as service:
        PolicyClient(service.url).wait_until_ready(60)
        workers = children(service.process.pid)
        service.process.kill()
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
        assert not takes_connections(service)


@pytest.mark.long
def test_a_reload_under_load_replaces_the_workers_and_loses_nothing(
    models: Path, tmp_path: Path, tell: Tell
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{OLD_KEY}\n")
    options = ("--workers", str(WORKERS), "--api-keys-file", str(keys))
    reloads = 3
    with running_service(models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        before = children(service.process.pid)
        with Load(service.url, 8, key=OLD_KEY) as load:
            for number in range(reloads):
                keys.write_text(f"{OLD_KEY}\n{NEW_KEY}{number}\n")
                reload(service)
                assert status(service, f"{NEW_KEY}{number}") == 200
                assert status(service, f"{NEW_KEY}{number - 1}") == 401
        tell(f"{reloads} reloads: {load.outcome}")
        assert load.outcome.sent == load.outcome.statuses[200] > 0
        assert not set(before) & set(children(service.process.pid))
        # A file of keys that is none leaves the valid ones valid.
        keys.write_text("short")
        reload(service)
        assert status(service, OLD_KEY) == 200


def reload(service: Service) -> None:
    before = set(children(service.process.pid))
    service.process.send_signal(signal.SIGHUP)

    def is_done() -> bool:
        now = children(service.process.pid)
        return len(now) == WORKERS and before.isdisjoint(now)

    wait_until(is_done)


def test_old_workers_go_on_until_a_new_one_serves(service: Service) -> None:
    before = set(children(service.process.pid))
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(set(children(service.process.pid)) - before) == WORKERS)
    successors = set(children(service.process.pid)) - before
    for process in successors:
        pause(process)  # as on a machine that is busy
    try:
        until = time.monotonic() + 2 * LINGER_SECONDS
        while time.monotonic() < until:
            with Wire(service.url) as wire:
                assert wire.ask(HEALTH).status == 200
            time.sleep(0.05)
        assert before <= set(children(service.process.pid))
    finally:
        for process in successors:
            os.kill(process, signal.SIGCONT)
    wait_until(lambda: before.isdisjoint(children(service.process.pid)))


def status(service: Service, key: str) -> int:
    with Wire(service.url) as wire:
        return wire.ask(post(BODY, f"Authorization: Bearer {key}")).status
