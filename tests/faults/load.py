"""Many connections that ask without a pause, in a process of their own.

`python -m tests.faults.load URL CONNECTIONS KEY` asks until its standard input ends, waits for
the answers, and prints what became of every request as JSON.
"""

import errno
import re
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import msgspec

from tests.faults.wire import BODY, post

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
_VERSION = re.compile(rb'"version":(\d+)')
GIVE_UP_SECONDS = 60.0


@dataclass
class Outcome:
    """What became of the requests.

    A request is sent when the kernel has taken its bytes on a connection that is established.
    It is lost when that connection ends before the whole answer is there; a connection that is
    refused carries no request.
    """

    sent: int = 0
    statuses: dict[int, int] = field(default_factory=Counter)  # of whole answers
    lost_ports: list[int] = field(default_factory=list)  # of our side of the connection
    unanswered: int = 0  # when it gave up waiting
    refused: int = 0  # connections
    unused: int = 0  # connections that ended before anything was sent on them
    wrong: list[str] = field(default_factory=list)  # answers that are not as designed
    versions: dict[int, int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)  # seconds, of the answers with 200
    seconds: float = 0.0

    def percentile_ms(self, percent: float) -> float:
        """Of the latencies, in milliseconds."""
        ordered = sorted(self.latencies)
        return 1_000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]

    def __str__(self) -> str:
        answered = ", ".join(f"{count} x {status}" for status, count in self.statuses.items())
        text = f"{self.sent} sent in {self.seconds:.1f} s, answered {answered or 'none'}"
        text += f", lost {len(self.lost_ports)}, unanswered {self.unanswered}"
        if self.latencies:
            text += f"; p50 {self.percentile_ms(50):.2f} ms, p99 {self.percentile_ms(99):.2f} ms"
        return text


class Load:
    """The load as a context: it continues while the `with` block runs."""

    def __init__(
        self, url: str, connections: int, key: str = "no key", within: Sequence[str] = ()
    ) -> None:
        """`within` is a command that starts it, such as in another network namespace."""
        own = [sys.executable, "-m", "tests.faults.load", url, str(connections), key]
        self._command = [*within, *own]
        self.outcome = Outcome()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=Path(__file__).parent.parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            printed, _none = self._process.communicate()
        self.outcome = msgspec.json.decode(printed, type=Outcome)


class _Client:
    """One connection after the other, one request in hand at most."""

    def __init__(self, loop: "_Loop") -> None:
        self.loop = loop
        loop.clients.add(self)
        self.connect()

    def connect(self) -> None:
        self.begun = 0.0  # when the request in hand was sent
        self.received = b""
        self.socket = socket.socket()
        self.socket.setblocking(False)
        code = self.socket.connect_ex(self.loop.address)
        if code not in (0, errno.EINPROGRESS):
            self.refused()
            return
        self.loop.selector.register(self.socket, selectors.EVENT_WRITE, self.connected)

    def connected(self) -> None:
        if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.loop.selector.unregister(self.socket)
            self.refused()
            return
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.loop.selector.modify(self.socket, selectors.EVENT_READ, self.readable)
        self.ask()

    def refused(self) -> None:
        """The service is gone, and this client with it."""
        self.socket.close()
        self.loop.outcome.refused += 1
        self.loop.clients.discard(self)

    def ask(self) -> None:
        if self.loop.stopping:
            self.leave()
            return
        try:
            self.socket.send(self.loop.request)
        except OSError:
            self.loop.outcome.unused += 1
            self.close()
            self.connect()
            return
        self.begun = time.monotonic()
        self.loop.outcome.sent += 1

    def readable(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.lose()
            return
        self.received += data
        end = self.received.find(b"\r\n\r\n") + 4
        length = _LENGTH.search(self.received, 0, end)
        if end < 4 or length is None or len(self.received) < end + int(length[1]):
            return
        head, body = self.received[:end], self.received[end:]
        self.received = b""
        self.loop.answered(head, body, time.monotonic() - self.begun)
        if b"\r\nConnection: close\r\n" in head:
            self.close()
            self.connect()
        else:
            self.ask()

    def lose(self) -> None:
        self.loop.outcome.lost_ports.append(self.socket.getsockname()[1])
        self.close()
        self.connect()

    def leave(self) -> None:
        self.close()
        self.loop.clients.discard(self)

    def close(self) -> None:
        self.loop.selector.unregister(self.socket)
        self.socket.close()


class _Loop:
    def __init__(self, url: str, connections: int, key: str) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname, parts.port)
        self.request = post(BODY, f"Authorization: Bearer {key}")
        self.stopping = 0.0
        self.outcome = Outcome()
        self.selector = selectors.DefaultSelector()
        self.selector.register(sys.stdin, selectors.EVENT_READ, self.stop)
        self.clients: set[_Client] = set()
        for _ in range(connections):
            _Client(self)

    def stop(self) -> None:
        if not sys.stdin.read(1):
            self.selector.unregister(sys.stdin)
            self.stopping = time.monotonic()

    def answered(self, head: bytes, body: bytes, seconds: float) -> None:
        status = int(head[9:12])
        self.outcome.statuses[status] += 1
        version = _VERSION.search(body)
        if status == 200 and version is not None:
            self.outcome.versions[int(version[1])] += 1
            self.outcome.latencies.append(round(seconds, 6))
        elif status != 503 or b"\r\nRetry-After: " not in head:
            self.outcome.wrong.append((head + body).decode("latin-1"))

    def run(self) -> Outcome:
        started = time.monotonic()
        while self.clients:
            for key, _ in self.selector.select(1.0):
                key.data()
            if self.stopping and time.monotonic() > self.stopping + GIVE_UP_SECONDS:
                self.outcome.unanswered = sum(bool(client.begun) for client in self.clients)
                break
        self.outcome.seconds = time.monotonic() - started
        return self.outcome


if __name__ == "__main__":
    outcome = _Loop(sys.argv[1], int(sys.argv[2]), sys.argv[3]).run()
    sys.stdout.write(msgspec.json.encode(outcome).decode())
