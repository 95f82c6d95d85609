"""Load generators: wrk for full load, and a client of our own for a constant rate.

wrk is a closed-loop client: it sends the next request of a connection when the last is answered, so
it cannot keep a rate. wrk2 can, but Debian does not package it. `paced_load` is one thread around
`select`: too slow for full load, fast enough for half of it.
"""

import contextlib
import ctypes
import functools
import http.client
import itertools
import json
import select
import shutil
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from benchmarks.protocols import HEADER, infer_binary, with_json

RESPONSE_TIMEOUT_SECONDS = 120
RECEIVE_BYTES = 1 << 16  # for much more, malloc maps memory each time
_SCRIPT = Path(__file__).with_suffix(".lua")
_PR_SET_TIMERSLACK = 29  # of linux/prctl.h


class LoadError(Exception):
    """The load could not be generated, or a request failed."""


class Body(NamedTuple):
    """The headers, content and path of a request."""

    headers: dict[str, str]
    content: bytes
    path: str = "/act"


class Load(NamedTuple):
    """The measurements of wrk."""

    requests: int  # completed
    seconds: float
    p50_ms: float
    p99_ms: float  # corrected by wrk for coordinated omission


class PacedLoad(NamedTuple):
    """The measurements of the client with a constant rate."""

    p50_ms: float  # from sending, plus the time that a request waited for an idle connection
    p99_ms: float
    late_p99_ms: float  # how late requests were sent on idle connections; not in the others


@functools.cache
def json_body(rows: int) -> Body:
    """Observations near CartPole's initial states, encoded by `json.dumps`."""
    observations = np.random.default_rng(rows).uniform(-0.05, 0.05, (rows, 4)).astype(np.float32)
    content = json.dumps({"observations": observations.tolist()}).encode()
    return Body({"Content-Type": "application/json"}, content)


@functools.cache
def binary_body(rows: int) -> Body:
    """The same observations as a binary tensor of the Open Inference Protocol."""
    observations = np.array(json.loads(json_body(rows).content)["observations"], np.float32)
    content, head_size = infer_binary(observations, with_json)
    headers = {"Content-Type": "application/octet-stream", HEADER: str(head_size)}
    return Body(headers, content, "/v2/models/cartpole/infer")


BODIES: dict[str, Callable[[int], Body]] = {"json": json_body, "binary": binary_body}


def require_wrk() -> None:
    """Require wrk.

    Raises:
        LoadError: it is missing; the message says how to install it.
    """
    if shutil.which("wrk") is None:
        raise LoadError("wrk is missing; on Debian: apt-get install wrk")


def send(url: str, body: Body) -> tuple[int, bytes]:
    """Send one request over a new connection; returns the status and content of the response.

    Raises:
        LoadError: there was no response.
    """
    address = urlsplit(url).netloc
    connection = http.client.HTTPConnection(address, timeout=RESPONSE_TIMEOUT_SECONDS)
    with contextlib.closing(connection):
        try:
            connection.request("POST", body.path, body.content, body.headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise LoadError(f"no response: {error}") from error


def full_load(url: str, body: Body, *, connections: int, seconds: int) -> Load:
    """Keep that many connections busy with wrk.

    Raises:
        LoadError: a request failed, or its response was an error.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(body.content)
        file.flush()
        finished = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(connections)),
                *("--duration", f"{seconds}s", "--timeout", f"{RESPONSE_TIMEOUT_SECONDS}s"),
                *("--script", _SCRIPT, url + body.path, "--", file.name),
                *itertools.chain(*body.headers.items()),
            ],
            capture_output=True,
            text=True,
        )
    return parse_wrk(finished.stdout, finished.stderr)


def parse_wrk(output: str, errors: str) -> Load:
    """Parse the last line that `serving_load.lua` printed.

    Raises:
        LoadError: see `full_load`.
    """
    lines = output.splitlines()
    if not lines or not lines[-1].startswith("{"):
        raise LoadError(f"wrk failed: {errors.strip() or output.strip()}")
    seen = json.loads(lines[-1])
    failed = {kind: count for kind, count in seen["errors"].items() if count}
    if failed:
        raise LoadError(f"of {seen['requests']} requests failed, by kind: {failed}")
    return Load(
        seen["requests"], seen["duration_us"] / 1e6, seen["p50_us"] / 1e3, seen["p99_us"] / 1e3
    )


def paced_load(url: str, body: Body, *, rate: float, seconds: float, connections: int) -> PacedLoad:
    """Send a request every `1 / rate` seconds, over persistent connections.

    A request that is due while all connections are busy waits; its latency includes that time.

    Raises:
        LoadError: a request was not answered with status 200.
    """
    parts = urlsplit(url)
    headers = {"Host": parts.netloc, "Content-Length": len(body.content), **body.headers}
    lines = [f"POST {body.path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode() + body.content
    address = parts.hostname, parts.port
    with contextlib.ExitStack() as stack:
        sockets = []
        try:
            for _ in range(connections):
                sock = socket.create_connection(address, RESPONSE_TIMEOUT_SECONDS)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sockets.append(stack.enter_context(sock))
            stack.enter_context(_precise_timers())
            return _pace(sockets, request, rate, max(1, round(rate * seconds)))
        except OSError as error:
            raise LoadError(f"a connection failed: {error}") from error


@contextlib.contextmanager
def _precise_timers() -> Iterator[None]:
    """Set the timer slack to 1 ns: the default lets the kernel wake a thread 50 us late."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_TIMERSLACK, 0, 0, 0, 0)  # back to the default; children inherit it


def _pace(
    connections: list[socket.socket], request: bytes, rate: float, requests: int
) -> PacedLoad:
    started, sent = time.perf_counter(), 0
    # Connections are used in turn, like independent clients.
    idle = deque((connection, started) for connection in connections)
    started_at: dict[socket.socket, float] = {}
    received: dict[socket.socket, bytes] = {}
    latencies: list[float] = []
    late: list[float] = []
    while len(latencies) < requests:
        now, next_due = time.perf_counter(), started + sent / rate
        if sent < requests and idle and next_due <= now:
            connection, idle_since = idle.popleft()
            started_at[connection] = now - max(0.0, idle_since - next_due)
            received[connection] = b""
            connection.sendall(request)
            late.append(now - max(next_due, idle_since))
            sent += 1
            continue
        timeout = next_due - now if sent < requests and idle else RESPONSE_TIMEOUT_SECONDS
        readable, _, _ = select.select(list(started_at), [], [], timeout)
        if not readable and timeout == RESPONSE_TIMEOUT_SECONDS:
            raise LoadError(f"no response within {RESPONSE_TIMEOUT_SECONDS} s")
        for connection in readable:
            received[connection] += connection.recv(RECEIVE_BYTES) or _closed()
            if is_complete(received[connection]):
                answered = time.perf_counter()
                latencies.append(answered - started_at.pop(connection))
                idle.append((connection, answered))
    return PacedLoad(*percentiles_ms(latencies), percentiles_ms(late)[1])


def _closed() -> bytes:
    raise LoadError("the service closed a connection")


def is_complete(response: bytes) -> bool:
    """Whether an HTTP/1.1 response with a `Content-Length` has been received completely.

    Raises:
        LoadError: its status is not 200, or it has no `Content-Length`.
    """
    head, end, content = response.partition(b"\r\n\r\n")
    if not end:
        return False
    _, has_length, rest = head.lower().partition(b"\r\ncontent-length:")
    if not head.startswith(b"HTTP/1.1 200 ") or not has_length:
        raise LoadError(f"the response is {head.decode(errors='replace').splitlines()[0]}")
    return len(content) == int(rest.partition(b"\r\n")[0])


def percentiles_ms(seconds: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    p50, p99 = 1e3 * np.percentile(seconds, (50, 99))
    return float(p50), float(p99)
