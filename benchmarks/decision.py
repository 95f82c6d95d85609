"""Where the time of a decision goes, part by part, in one process without a network.

    python benchmarks/decision.py MODEL_DIR [--rounds 15]

Every round runs each part for a while, in turn, so that noise affects all equally; the table has
the medians of the rounds (least to greatest). A part alone has the processor's caches to itself.
Within a request it takes up to twice as long, so the sum of the parts is less than a request takes.
"""

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import click

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import median_and_range, table
from benchmarks.serving_load import json_body

REQUESTS = 16
ALONE = "decision routes, one request"
TOGETHER = f"decision routes, {REQUESTS} requests together"
ROUND_SECONDS = 0.05


class Loopback:
    """A fake socket: it delivers the given requests again and again, and accepts every answer."""

    def __init__(self, *requests: bytes) -> None:
        self._requests = itertools.cycle(requests)

    def recv(self, _size: int) -> bytes:
        """The next request."""
        return next(self._requests)

    def send(self, data: memoryview) -> int:
        """Take all."""
        return len(data)

    def setblocking(self, _flag: bool) -> None:
        """It never blocks."""

    def setsockopt(self, *_: object) -> None:
        """It has no options."""


class NoOwner:
    """The owner of a connection, which refuses nothing."""

    def admit(self, _head: object) -> None:
        """Accept every head."""

    def refusal(self, error: Exception, _head: object, _peer: str) -> bytes:
        """Refuse nothing: raise the error."""
        raise error


def parts(model_dir: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name; imports here, because the environment variables must be set first."""
    import numpy as np
    import tensorflow as tf

    from serving.api.act import ActProtocol
    from serving.api.app import create_api
    from serving.api.body import BodyReader
    from serving.api.decisions import Call
    from serving.api.keys import Keys
    from serving.api.messages import Request
    from serving.metrics import Metrics
    from serving.policy.columns import Columns
    from serving.policy.decide import decide_many
    from serving.policy.observations import to_array
    from serving.policy.sampling import uniforms_of
    from serving.record.drift import Drift
    from serving.record.shadow import Shadows
    from serving.registry.repository import Repository
    from serving.registry.trial import Trials
    from serving.server.clock import Clock
    from serving.server.connection import Connection, Limits
    from serving.server.parser import Received, RequestParser
    from serving.server.responses import call_wsgi, header_lines, serialize
    from serving.service import DecisionService
    from serving.settings import Settings

    settings = Settings(
        models=model_dir.parent.parent, name=model_dir.parent.name, pin=int(model_dir.name)
    )
    metrics = Metrics()
    repository = Repository(settings, metrics, Trials())
    repository.refresh()
    policy, names = repository.policy(), repository.policy().card.observations.names
    api = create_api(settings, repository, metrics, Keys([]))
    drift = Drift(metrics.statistics.arrays, repository)
    service = DecisionService(settings.max_rows, metrics, drift, Shadows(repository, metrics))
    protocol = ActProtocol(repository, BodyReader(settings, api.budget, repository.widest))

    body, address = json_body(1), ("127.0.0.1", 1)
    lines = ["POST /act HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body.content)}"]
    lines += [f"{name}: {text}" for name, text in body.headers.items()]
    raw = "\r\n".join([*lines, "", ""]).encode() + body.content

    def parse() -> Received | None:
        return RequestParser(settings.max_body_bytes).feed(raw)

    received = parse()
    assert received is not None
    head = received.head
    found = api.decisions.match(head.method, head.path)
    assert found is not None
    request = Request(head.method, head.path, head.headers, body.content, address[0])
    call = Call(*found, request, "id")
    decoded = protocol.decode(request)
    decision, encode_result = decoded
    (result,) = decide_many([decision], 1).results
    (answer,) = api.decisions.answer([call])
    fields = f"X-Request-ID: {call.id}\r\n{header_lines(api.exchange.headers)}"
    limits = Limits(api.budget, Clock(), settings.max_body_bytes, 10.0, 75.0)

    def exchange(*requests: bytes) -> Callable[[], object]:
        connection = Connection(cast(Any, Loopback(*requests)), address, NoOwner(), limits)

        def once() -> None:
            connection.receive()
            connection.take()
            connection.answer(b"x", keep=True)

        return once

    observations = to_array(cast(Any, decision.rows), names, 1)
    randomness, deterministic = uniforms_of([7], [1]), np.zeros(1, np.bool_)
    signature = tf.saved_model.load(model_dir).signatures["act"]
    tensors = {
        "observations": tf.constant(observations),
        "uniforms": tf.constant(randomness),
        "deterministic": tf.constant(deterministic),
    }
    inputs = [tensors[name] for name in sorted(tensors)]
    dtypes = [output.dtype for output in signature.outputs]

    def eager() -> object:
        arguments = [*inputs, *signature.captured_inputs]
        return tf.raw_ops.StatefulPartitionedCall(args=arguments, Tout=dtypes, f=signature)

    return {
        "policy: its signature, called": lambda: signature(**tensors),
        "policy: as one eager operation": eager,
        "policy: through a session (as served)": lambda: policy.act(
            observations, randomness, deterministic
        ),
        "parse a request": parse,
        "connection: a request with another head": exchange(raw, raw.replace(b"Host", b"host")),
        "connection: a request with the last one's head": exchange(raw),
        "decode JSON": lambda: protocol.decode(request),
        "rows to an array, validated": lambda: to_array(cast(Any, decision.rows), names, 1),
        "randomness of a seed": lambda: uniforms_of([7], [1]),
        "decide: policy, randomness, checks": lambda: decide_many([decision], 1),
        "decide and count": lambda: service.decide_many([decision]),
        "encode JSON": lambda: encode_result(cast(Any, result), Columns(cast(Any, result))),
        "write an answer": lambda: serialize(answer, keep=True, fields=fields),
        "Flask: WSGI, routing, hooks, and the decision": lambda: call_wsgi(
            api.flask, received, address, address
        ),
        ALONE: lambda: api.decisions.answer([call]),
        TOGETHER: lambda: api.decisions.answer([call] * REQUESTS),
    }


def microseconds(part: Callable[[], object]) -> float:
    """Mean time of a call, over a twentieth of a second."""
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < ROUND_SECONDS:
        for _ in range(10):
            part()
        calls += 10
    return elapsed / calls * 1e6


@click.command()
@click.argument("model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--rounds", type=click.IntRange(1), default=15, show_default=True, help="How often.")
def main(model_dir: Path, rounds: int) -> None:
    """Time the parts of a decision about one row with the policy MODEL_DIR."""
    with tempfile.TemporaryDirectory() as folder:
        # prometheus_client counts in files here, as it does in the service.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        from serving.policy.tensorflow_import import import_tensorflow

        import_tensorflow()
        timed: dict[str, list[float]] = {}
        calls: dict[str, Any] = parts(model_dir.resolve())
        for part in calls.values():
            microseconds(part)
        for _ in range(rounds):
            for name, part in calls.items():
                timed.setdefault(name, []).append(microseconds(part))
    rows = [[name, median_and_range(values, 1)] for name, values in timed.items()]
    click.echo(table([["part", "us a call"], *rows]))
    together, alone = statistics.median(timed[TOGETHER]), statistics.median(timed[ALONE])
    more = (together - alone) / (REQUESTS - 1)
    click.echo(f"decision routes: {alone - more:.0f} us a call and {more:.0f} us a request")


if __name__ == "__main__":
    main()
