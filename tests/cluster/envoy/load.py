"""Clients that ask over TLS until the `with` block ends, in a process of their own.

`python -m tests.cluster.envoy.load URL CLIENTS KIND` has them ask until its standard input ends,
and prints what became of every request as JSON. KIND is `plain`, which asks once, or `policy`,
a `PolicyClient`.
"""

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import msgspec
import urllib3

from serving.client import PolicyClient, ServiceError
from tests.conftest import ENVIRONMENT, ROOT

ROW = [0.01, -0.02, 0.03, 0.04]
# Connections are idle between requests, as those of controllers are, and so may be closed.
MAX_PAUSE_SECONDS = 0.02
CLIENT_TIMEOUT = 10.0


@dataclass
class Failure:
    """A request without an answer of a policy."""

    at: float  # `time.monotonic()` of its end, the same clock in all processes
    seconds: float
    reason: str


@dataclass
class Outcome:
    """What became of the requests."""

    sent: int = 0
    versions: dict[int, int] = field(default_factory=Counter)  # of the answers with 200
    failures: list[Failure] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)  # seconds, of the answers with 200

    @property
    def answered(self) -> int:
        """Requests that a policy answered."""
        return len(self.latencies)

    def __str__(self) -> str:
        ordered = sorted(self.latencies)
        return (
            f"{self.sent} requests, {len(self.failures)} failed, p50 "
            f"{1_000 * ordered[len(ordered) // 2]:.1f} ms, slowest answer {ordered[-1]:.2f} s"
        )


class Load:
    """The load as a context: it continues while the `with` block runs."""

    def __init__(
        self, url: str, authority: Path, clients: int, kind: str, within: Sequence[str] = ()
    ) -> None:
        """`authority` is whose certificates are believed, `within` a command that starts it."""
        own = [sys.executable, "-m", "tests.cluster.envoy.load", url, str(clients), kind]
        self._command = [*within, *own]
        self._environment = ENVIRONMENT | {"SSL_CERT_FILE": str(authority)}
        self.outcome = Outcome()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "every client has asked\n"
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            printed, _none = self._process.communicate()
        self.outcome = msgspec.json.decode(printed, type=Outcome)


def plain(url: str) -> Callable[[], int]:
    """A client without retries; its function returns the version that answered."""
    http = urllib3.PoolManager(timeout=CLIENT_TIMEOUT)
    body = {"observations": [ROW], "seed": 7}

    def ask() -> int:
        answer = http.request("POST", f"{url}/act", json=body, retries=False)
        if answer.status != 200:
            raise ServiceError(f"{answer.status} {answer.data.decode(errors='replace')}")
        version: int = answer.json()["model"]["version"]
        return version

    return ask


def policy(url: str) -> Callable[[], int]:
    """The client of this project, which retries."""
    client = PolicyClient(url, timeout=CLIENT_TIMEOUT)
    return lambda: client.act([ROW], seed=7).model.version


class _Clients:
    def __init__(self, url: str, count: int, kind: str) -> None:
        self.outcome = Outcome()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._warm = threading.Barrier(count + 1)
        make = {"plain": plain, "policy": policy}[kind]
        self._threads = [
            threading.Thread(target=self._run, args=(make(url),)) for _ in range(count)
        ]

    def _run(self, ask: Callable[[], int]) -> None:
        self._ask(ask)
        self._warm.wait()
        while not self._stopping.wait(random.uniform(0, MAX_PAUSE_SECONDS)):
            self._ask(ask)

    def _ask(self, ask: Callable[[], int]) -> None:
        begin = time.monotonic()
        try:
            version, reason = ask(), ""
        except (ServiceError, urllib3.exceptions.HTTPError) as error:
            version, reason = 0, f"{type(error).__name__}: {error}"
        end = time.monotonic()
        with self._lock:
            self.outcome.sent += 1
            if reason:
                self.outcome.failures.append(Failure(end, end - begin, reason))
            else:
                self.outcome.versions[version] += 1
                self.outcome.latencies.append(end - begin)

    def run(self) -> None:
        for thread in self._threads:
            thread.start()
        self._warm.wait()
        sys.stdout.write("every client has asked\n")
        sys.stdout.flush()
        sys.stdin.read()
        self._stopping.set()
        for thread in self._threads:
            thread.join()


if __name__ == "__main__":
    clients = _Clients(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    clients.run()
    sys.stdout.write(msgspec.json.encode(clients.outcome).decode())
    sys.stdout.flush()
    os._exit(0)
