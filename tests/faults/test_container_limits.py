"""A container with too little memory, or too few processes and threads."""

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from serving.client import PolicyClient
from tests.conftest import Trained, wait_until
from tests.containers import docker, inspect
from tests.faults.conftest import Tell
from tests.faults.wire import Wire, post

LARGE = b'{"observations":[' + b",".join([b"[0.01,-0.02,0.03,0.04]"] * 60_000) + b"]}"
# As in docker-compose.yml.
HARDENED = (
    *("--init", "--read-only", "--tmpfs=/tmp"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges:true"),
)


class Container(NamedTuple):
    name: str

    @property
    def url(self) -> str:
        return f"http://{docker('port', self.name, '8000')}"

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = inspect(self.name)["State"]
        return state

    def log(self) -> str:
        return docker("logs", self.name)

    def send(self, body: bytes) -> int:
        """The status of an answer; 0 if the connection ended without one."""
        try:
            with Wire(self.url) as wire:
                return wire.ask(post(body)).status
        except OSError:
            return 0


@pytest.fixture
def image(images: str) -> str:
    """The image that serves."""
    return f"{images}-serve"


@contextmanager
def running(image: str, trained: Trained, *options: str) -> Iterator[Container]:
    """Run the service in a container."""
    name = f"{image}-{uuid.uuid4().hex[:8]}"
    where = (f"--volume={trained.models}:/app/models:ro", "--publish=127.0.0.1::8000")
    docker("run", "--detach", f"--name={name}", *HARDENED, *where, *options, image)
    try:
        yield Container(name)
    finally:
        docker("rm", "--force", name)


@pytest.mark.long
def test_where_memory_runs_out_a_worker_is_ended_and_replaced_not_the_service(
    image: str, trained: Trained, tell: Tell
) -> None:
    with running(image, trained, "--memory=512m", "--memory-swap=512m") as container:
        PolicyClient(container.url).wait_until_ready(60)
        before = container.state()
        statuses: Counter[int] = Counter()
        with ThreadPoolExecutor(24) as clients:

            def is_ended() -> bool:
                statuses.update(clients.map(container.send, [LARGE] * 24))
                return "was sent SIGKILL! Perhaps out of memory?" in container.log()

            # Just below the limit the kernel takes long to find memory, and nothing is ended.
            wait_until(is_ended, seconds=180)

        def is_replaced() -> bool:
            log = container.log()
            return log.count("Booting worker") == 2 + log.count("was sent SIGKILL")

        wait_until(is_replaced)
        wait_until(lambda: all(container.send(LARGE) == 200 for _ in range(4)))
        tell(f"24 connections of {len(LARGE)} bytes: {dict(statuses)} (0: no answer)")
        after = container.state()
        assert (after["Running"], after["Pid"]) == (True, before["Pid"])
        assert set(statuses) <= {0, 200, 503}
        assert "Traceback" not in container.log()


def test_large_requests_need_no_thread_beyond_those_of_the_start(
    image: str, trained: Trained
) -> None:
    with running(image, trained) as container:
        PolicyClient(container.url).wait_until_ready(60)
        wait_until(lambda: container.log().count("serving cartpole version 1") == 2)
        _, *threads = docker("top", container.name, "-eLo", "pid,lwp").splitlines()
        docker("update", f"--pids-limit={len(threads)}", container.name)
        with ThreadPoolExecutor(16) as clients:
            assert set(clients.map(container.send, [LARGE] * 16)) == {200}
        assert "start new thread" not in container.log()


def test_the_documented_number_of_processes_is_enough(image: str, trained: Trained) -> None:
    cores = len(os.sched_getaffinity(0))
    documented = 2 * (8 + 6 + max(1, cores // 2)) + 7
    # Docker's own: the init process, and Python for the health check.
    with running(image, trained, f"--pids-limit={documented + 2}") as container:
        PolicyClient(container.url).wait_until_ready(60)
        assert "refused" not in container.log()


@pytest.mark.parametrize("limit", [24, 31])
def test_a_limit_of_processes_that_is_too_low_is_named_at_the_start(
    image: str, trained: Trained, limit: int
) -> None:
    with running(image, trained, f"--pids-limit={limit}") as container:
        assert docker("wait", container.name) == "3"
        log = container.log()
    assert "threads of the workers cannot be started" in log
    assert "is there a limit of processes?" in log
    assert "Traceback" not in log
