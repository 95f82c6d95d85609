"""Load on a service: wrk for full load, and a client of our own for a constant rate.

wrk sends the next request of a connection when the last is answered. It cannot keep a rate, and
wrk2, which can, is not packaged for Debian. `paced_load` is one thread around `select`: too slow
for full load, fast enough for half of it.
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

import click
import numpy as np

from benchmarks import protocols
from benchmarks.protocols import HEADER, with_json

LONGEST_ANSWER_SECONDS = 120
RECEIVE_BYTES = 1 << 16  # for a much larger buffer, malloc would ask the kernel each time
_SCRIPT = Path(__file__).with_suffix(".lua")
_PR_SET_TIMERSLACK = 29  # of linux/prctl.h


class LoadError(click.ClickException):
    """The load could not be made, or not every request was answered as it should be."""


class Body(NamedTuple):
    """A request, whatever its format."""

    headers: dict[str, str]
    content: bytes
    path: str = "/act"


class Load(NamedTuple):
    """What wrk saw."""

    requests: int  # answered
    seconds: float
    p50_ms: float
    p99_ms: float  # corrected by wrk for requests that a slow answer held back


class PacedLoad(NamedTuple):
    """What the client of a constant rate saw."""

    p50_ms: float  # from sending, plus the time that a request waited for an idle connection
    p99_ms: float
    late_p99_ms: float  # delay of sending while a connection was idle: not counted above


def observations(rows: int) -> protocols.Array:
    """Random observations near CartPole's start, `[rows, 4]`."""
    return np.random.default_rng(rows).uniform(-0.05, 0.05, (rows, 4)).astype(np.float32)


@functools.cache
def json_body(rows: int) -> Body:
    """A request of `POST /act`, as `json.dumps` writes a NumPy array's numbers."""
    content = json.dumps({"observations": observations(rows).tolist()}).encode()
    return Body({"Content-Type": "application/json"}, content)


@functools.cache
def predict_body(rows: int) -> Body:
    """The same observations as TensorFlow Serving's `instances`."""
    content, _ = protocols.rows(observations(rows), with_json)
    return Body({"Content-Type": "application/json"}, content, "/v1/models/cartpole:predict")


@functools.cache
def infer_body(rows: int) -> Body:
    """The same observations for the Open Inference Protocol, in JSON."""
    content, _ = protocols.infer(observations(rows), with_json)
    return Body({"Content-Type": "application/json"}, content, "/v2/models/cartpole/infer")


@functools.cache
def binary_body(rows: int) -> Body:
    """The same observations for the Open Inference Protocol, in Triton's binary tensors."""
    content, head_size = protocols.infer_binary(observations(rows), with_json)
    headers = {"Content-Type": "application/octet-stream", HEADER: str(head_size)}
    return Body(headers, content, "/v2/models/cartpole/infer")


BODIES: dict[str, Callable[[int], Body]] = {
    "act": json_body,
    "predict": predict_body,
    "infer": infer_body,
    "binary": binary_body,
}


def require_wrk() -> None:
    """Check that wrk is installed.

    Raises:
        LoadError: it is not; the message says how to install it.
    """
    if shutil.which("wrk") is None:
        raise LoadError("wrk is missing; on Debian: apt-get install wrk")


def ask(url: str, body: Body) -> tuple[int, bytes]:
    """Status and content of one answer, over a connection of its own.

    Raises:
        LoadError: there was none.
    """
    address = urlsplit(url).netloc
    connection = http.client.HTTPConnection(address, timeout=LONGEST_ANSWER_SECONDS)
    with contextlib.closing(connection):
        try:
            connection.request("POST", body.path, body.content, body.headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            raise LoadError(f"no answer: {error}") from error


def full_load(url: str, body: Body, *, connections: int, seconds: int) -> Load:
    """Keep that many connections busy with wrk.

    Raises:
        LoadError: a request failed or was answered with an error.
    """
    with tempfile.NamedTemporaryFile() as file:
        file.write(body.content)
        file.flush()
        finished = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(connections)),
                *("--duration", f"{seconds}s", "--timeout", f"{LONGEST_ANSWER_SECONDS}s"),
                *("--script", _SCRIPT, url + body.path, "--", file.name),
                *itertools.chain(*body.headers.items()),
            ],
            capture_output=True,
            text=True,
        )
    return parse_wrk(finished.stdout, finished.stderr)


def parse_wrk(output: str, errors: str) -> Load:
    """Read what `serving_load.lua` printed last.

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
    """Send a request every `1 / rate` seconds, over connections that are kept.

    A request that is due while every connection is busy waits, and this wait counts.

    Raises:
        LoadError: a request was not answered with status 200.
    """
    parts = urlsplit(url)
    headers = {"Host": parts.netloc, "Content-Length": len(body.content), **body.headers}
    lines = [f"POST {body.path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    request = "\r\n".join([*lines, "", ""]).encode() + body.content
    address = parts.hostname, parts.port
    with contextlib.ExitStack() as stack:
        kept = []
        try:
            for _ in range(connections):
                made = socket.create_connection(address, LONGEST_ANSWER_SECONDS)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                kept.append(stack.enter_context(made))
            stack.enter_context(_precise_timers())
            return _pace(kept, request, rate, max(1, round(rate * seconds)))
        except OSError as error:
            raise LoadError(f"a connection failed: {error}") from error


@contextlib.contextmanager
def _precise_timers() -> Iterator[None]:
    """Have the kernel wake this thread on time, not up to 50 microseconds later."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_TIMERSLACK, 0, 0, 0, 0)  # the default again, which children inherit


def _pace(
    connections: list[socket.socket], request: bytes, rate: float, requests: int
) -> PacedLoad:
    started, sent = time.perf_counter(), 0
    # Connections take turns, as if each belonged to a client of its own.
    idle = deque((connection, started) for connection in connections)
    begun: dict[socket.socket, float] = {}
    received: dict[socket.socket, bytes] = {}
    waited: list[float] = []
    late: list[float] = []
    while len(waited) < requests:
        now, next_due = time.perf_counter(), started + sent / rate
        if sent < requests and idle and next_due <= now:
            connection, idle_since = idle.popleft()
            begun[connection] = now - max(0.0, idle_since - next_due)
            received[connection] = b""
            connection.sendall(request)
            late.append(now - max(next_due, idle_since))
            sent += 1
            continue
        pause = next_due - now if sent < requests and idle else LONGEST_ANSWER_SECONDS
        readable, _, _ = select.select(list(begun), [], [], pause)
        if not readable and pause == LONGEST_ANSWER_SECONDS:
            raise LoadError(f"no answer within {LONGEST_ANSWER_SECONDS} s")
        for connection in readable:
            received[connection] += connection.recv(RECEIVE_BYTES) or _closed()
            if is_whole(received[connection]):
                answered = time.perf_counter()
                waited.append(answered - begun.pop(connection))
                idle.append((connection, answered))
    return PacedLoad(*percentiles_ms(waited), percentiles_ms(late)[1])


def _closed() -> bytes:
    raise LoadError("the service closed a connection")


def is_whole(answer: bytes) -> bool:
    """Whether an answer of HTTP/1.1 with a `Content-Length` has arrived.

    Raises:
        LoadError: its status is not 200, or it has no length.
    """
    head, end, content = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    _, has_length, rest = head.lower().partition(b"\r\ncontent-length:")
    if not head.startswith(b"HTTP/1.1 200 ") or not has_length:
        raise LoadError(f"answered with {head.decode(errors='replace').splitlines()[0]}")
    return len(content) == int(rest.partition(b"\r\n")[0])


def percentiles_ms(seconds: Sequence[float]) -> tuple[float, float]:
    """The median and the 99th percentile, in milliseconds."""
    p50, p99 = 1e3 * np.percentile(seconds, (50, 99))
    return float(p50), float(p99)
