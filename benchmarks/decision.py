"""Where the time of a decision goes, part by part, in one process without a network.

    python benchmarks/decision.py MODEL_DIR [--rounds 15]

Every round runs each part for a while, in turn, so that noise meets all alike; the table has the
medians of the rounds (least to greatest). A part alone has the processor's caches to itself: in the
middle of a request it takes up to twice as long, which is why the parts add up to less.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from socket import socket
from typing import Any

import click

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.common import median_and_range, table
from benchmarks.serving_load import json_body

TOGETHER = 16
ROUND_SECONDS = 0.05


def parts(model_dir: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name; imports what is to be imported after the environment is set."""
    import numpy as np
    import tensorflow as tf
    from gunicorn.config import Config
    from gunicorn.http.parser import RequestParser
    from werkzeug.datastructures import Headers
    from werkzeug.test import EnvironBuilder, run_wsgi_app

    from serving.api.act import answer_act, read_act
    from serving.api.app import create_app
    from serving.api.encoding import encode
    from serving.api.keys import Keys
    from serving.metrics import Metrics
    from serving.policy.decide import Question, decide_together
    from serving.policy.observations import to_array
    from serving.policy.sampling import uniforms
    from serving.registry.repository import Repository
    from serving.server.connection import Connection
    from serving.server.fastlane import FastLane
    from serving.settings import Settings

    settings = Settings(
        models=model_dir.parent.parent, name=model_dir.parent.name, pin=int(model_dir.name)
    )
    metrics, keys = Metrics(), Keys([])
    repository = Repository(settings, metrics)
    repository.refresh()
    policy, names = repository.policy(), repository.policy().card.observations.names

    body = json_body(1)
    lines = ["POST /act HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body.content)}"]
    lines += [f"{name}: {text}" for name, text in body.headers.items()]
    request = "\r\n".join([*lines, "", ""]).encode() + body.content

    rows = read_act(body.content).rows
    observations = to_array(rows, names, 1)
    randomness, deterministic = uniforms(7, 1), np.zeros(1, np.bool_)
    questions = [Question(1, None, False)]
    (decided,) = decide_together(policy, observations, questions, metrics)
    signature = tf.saved_model.load(model_dir).signatures["act"]
    tensors = {
        "observations": tf.constant(observations),
        "uniforms": tf.constant(randomness),
        "deterministic": tf.constant(deterministic),
    }
    inputs = [tensors[name] for name in sorted(tensors)]
    dtypes = [output.dtype for output in signature.outputs]

    config, client = Config(), ("127.0.0.1", 1)
    # The socket is never read: what it would give is added to `received`.
    connection = Connection(config, socket(), client, client, settings.max_body_bytes)
    app = create_app(settings, repository, metrics, keys)
    fast_lane = FastLane(repository, settings, metrics, keys)

    def eager() -> object:
        arguments = [*inputs, *signature.captured_inputs]
        return tf.raw_ops.StatefulPartitionedCall(args=arguments, Tout=dtypes, f=signature)

    def receive() -> object:
        connection.received += request
        return connection.is_whole() and connection.take()

    environ = EnvironBuilder("/act", method="POST", headers=Headers(body.headers)).get_environ()
    environ["CONTENT_LENGTH"] = str(len(body.content))

    def through_flask() -> object:
        asked = environ | {"wsgi.input": BytesIO(body.content)}
        return run_wsgi_app(app.wsgi_app, asked)

    return {
        "policy: its signature, called": lambda: signature(**tensors),
        "policy: as one eager operation": eager,
        "policy: through a session (as served)": lambda: policy.act(
            observations, randomness, deterministic
        ),
        "find the end of a request": receive,
        "decode JSON": lambda: read_act(body.content),
        "rows to an array, validated": lambda: to_array(rows, names, 1),
        "randomness of a seed": lambda: uniforms(7, 1),
        "decide: policy, randomness, checks, metrics": lambda: decide_together(
            policy, observations, questions, metrics
        ),
        "encode JSON": lambda: encode(answer_act(policy, decided)),
        "gunicorn's parser": lambda: next(RequestParser(config, [request], client)),
        "Flask: WSGI, routing, hooks, and the decision": through_flask,
        "fast lane, one request": lambda: fast_lane.answer([request]),
        f"fast lane, {TOGETHER} requests together": lambda: fast_lane.answer([request] * TOGETHER),
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
        from serving.server.master import import_tensorflow

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
    together = statistics.median(timed[f"fast lane, {TOGETHER} requests together"])
    alone = statistics.median(timed["fast lane, one request"])
    more = (together - alone) / (TOGETHER - 1)
    click.echo(f"fast lane: {alone - more:.0f} us a call and {more:.0f} us a request")


if __name__ == "__main__":
    main()
