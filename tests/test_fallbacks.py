"""The service where the system has nothing that only Linux has."""

import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.client import PolicyClient
from serving.server.draining import stop_new_connections
from tests.conftest import Trained, running_service, wait_until

# Read by every Python that is started with this folder on its path, before the program.
WITHOUT_LINUX = """
import os
import resource
import sys

for name in (
    "copy_file_range", "eventfd", "memfd_create", "pidfd_open", "pipe2", "posix_fadvise",
    "posix_fallocate", "sched_getaffinity", "sched_yield", "setns", "splice", "unshare",
):
    if hasattr(os, name):
        delattr(os, name)


def is_hidden(path):
    return str(path).startswith(("/proc/", "/dev/shm/"))


def refuse(event, arguments):
    if event in ("open", "os.mkdir") and is_hidden(arguments[0]):
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


def readlink(path, **options):
    if is_hidden(path):
        raise FileNotFoundError(2, "No such file or directory", path)
    return READLINK(path, **options)


def getrlimit(kind):
    infinity = 2**63 - 1
    return (infinity, infinity) if kind == resource.RLIMIT_NOFILE else GETRLIMIT(kind)


READLINK, os.readlink = os.readlink, readlink
GETRLIMIT, resource.getrlimit = resource.getrlimit, getrlimit
sys.addaudithook(refuse)
"""
ROW = [0.01, -0.02, 0.03, 0.04]


def served_requests(url: str) -> float:
    import urllib3

    text = urllib3.request("GET", f"{url}/metrics").data.decode()
    lines = [line for line in text.splitlines() if line.startswith("policy_http_requests_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_it_serves_counts_reloads_and_ends_without_what_only_linux_has(
    trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LINUX)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    temporary.chmod(0o777)
    within = ("env", f"PYTHONPATH={tmp_path}", f"TMPDIR={temporary}")
    log = tmp_path / "log"
    with running_service(trained.models, log, within=within) as service:
        PolicyClient(service.url).wait_until_ready(60)

        def ask(_: int) -> set[int]:
            with PolicyClient(service.url) as client:
                return {client.act([ROW], deterministic=True).actions[0] for _ in range(20)}

        # Several connections to a worker, which then yields the CPU.
        with ThreadPoolExecutor(8) as clients:
            assert len(set.union(*clients.map(ask, range(16)))) == 1
        assert served_requests(service.url) >= 320
        # In place of /dev/shm; and what the versions have besides.
        assert len(list(temporary.glob("serving-*"))) == 2

        service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: log.read_text().count("serving cartpole version 1") == 4)
        wait_until(lambda: "worker exiting" in log.read_text().lower())
        for number in range(20):
            ask(number)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(timeout=60) == 0
    assert "Traceback" not in log.read_text()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("platform", ["darwin", "linux"])
def test_only_linux_gets_the_options_of_its_sockets(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    minimum_ttl = 21
    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = listener.getsockopt(socket.IPPROTO_IP, minimum_ttl)
        stop_new_connections(listener, parent=2**22)  # no process
        after = listener.getsockopt(socket.IPPROTO_IP, minimum_ttl)
    assert (before, after) == (0, 255 if platform == "linux" else 0)


def test_without_proc_a_socket_that_may_be_in_use_stays_open_to_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def readlink(path: str) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "readlink", readlink)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop_new_connections(listener, os.getpid())
        with socket.create_connection(listener.getsockname(), timeout=5):
            pass
