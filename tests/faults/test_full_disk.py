"""A full disk, or no more room in memory for files, does not stop answers."""

import os
import signal
from pathlib import Path

import pytest

from serving.client import PolicyClient
from tests.conftest import Service, Trained, running_service, wait_until
from tests.faults.mounts import fill, seen_by, with_mounts
from tests.faults.wire import HEALTH, Wire, children, metric, post

SHM = Path("/dev/shm")


def expect_answers(service: Service) -> None:
    """To everything, on connections that reach every worker."""
    for _ in range(20):
        with Wire(service.url) as wire:
            assert wire.ask(post()).status == 200
            assert wire.ask(post(b"{}")).status == 422
            assert wire.ask(HEALTH).status == 200


def expect_replaced(service: Service) -> None:
    workers = children(service.process.pid)
    os.kill(workers[0], signal.SIGKILL)

    def is_replaced() -> bool:
        now = children(service.process.pid)
        return len(now) == len(workers) and workers[0] not in now

    wait_until(is_replaced)


@pytest.mark.long
def test_a_full_disk_stops_nothing(trained: Trained, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    log = full / "log"
    mount = 'mount -t tmpfs -o size=256k,nr_inodes=50 none "$1" && export TMPDIR="$1"'
    within = with_mounts(f'{mount} && exec 2> "$1/log"', full)
    with running_service(trained.models, tmp_path / "log", within=within) as service:
        PolicyClient(service.url).wait_until_ready(60)
        fill(seen_by(service.process.pid, full))
        before = seen_by(service.process.pid, log).stat().st_size
        expect_answers(service)
        expect_replaced(service)
        service.process.send_signal(signal.SIGHUP)
        workers = children(service.process.pid)
        wait_until(lambda: set(workers).isdisjoint(children(service.process.pid)))
        expect_answers(service)
        assert sum(metric(service.url, "policy_http_requests_total").values()) >= 120
        assert seen_by(service.process.pid, log).stat().st_size - before < 8192  # truly full


@pytest.mark.long
def test_no_more_room_for_metrics_stops_nothing(trained: Trained, tmp_path: Path) -> None:
    within = with_mounts("mount -t tmpfs -o size=4m,nr_inodes=100 none /dev/shm")
    with running_service(trained.models, tmp_path / "log", within=within) as service:
        PolicyClient(service.url).wait_until_ready(60)
        fill(seen_by(service.process.pid, SHM))
        workers = children(service.process.pid)
        expect_answers(service)
        with Wire(service.url) as wire:  # routes that were not counted before
            for path in ("/metrics", "/models", "/docs", "/openapi.json", "/", "/no/such"):
                assert wire.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).status < 500
        assert children(service.process.pid) == workers
        assert sum(metric(service.url, "policy_http_requests_total").values()) >= 60
        expect_replaced(service)
        expect_answers(service)


@pytest.mark.long
def test_without_any_room_for_metrics_it_starts(trained: Trained, tmp_path: Path) -> None:
    within = with_mounts("mount -t tmpfs -o size=4k none /dev/shm")
    with running_service(trained.models, tmp_path / "log", within=within) as service:
        PolicyClient(service.url).wait_until_ready(60)
        workers = children(service.process.pid)
        expect_answers(service)
        assert metric(service.url, "policy_http_requests_total") == {}
        assert children(service.process.pid) == workers
    log = (tmp_path / "log").read_text()
    assert "no room for the metrics of this worker" in log
    assert "Traceback" not in log
