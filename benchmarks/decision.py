"""Time of each part of a request, in one process without a network.

    python benchmarks/decision.py MODEL_DIR [--rounds 15]

Every round runs each part for a while, in turn, so that noise affects all parts equally; the table
has the medians of the rounds (min to max). Here a part has the CPU caches to itself: within a
request it takes up to twice as long, which is why the parts add up to less than the whole.
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

BATCH = 16
ROUND_SECONDS = 0.05


def parts(model_dir: Path) -> dict[str, Callable[[], object]]:
    """The timed functions, by name; imports only after the environment is set."""
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
    # The socket is never read: the request is appended to `received` instead.
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
        return run_wsgi_app(app.wsgi_app, environ | {"wsgi.input": BytesIO(body.content)})

    return {
        "policy: its signature, called": lambda: signature(**tensors),
        "policy: as one eager operation": eager,
        "policy: through a session (as served)": lambda: policy.act(
            observations, randomness, deterministic
        ),
        "finding the end of a request": receive,
        "decoding JSON": lambda: read_act(body.content),
        "converting rows to an array, with validation": lambda: to_array(rows, names, 1),
        "random numbers from a seed": lambda: uniforms(7, 1),
        "policy with random numbers, checks and metrics": lambda: decide_together(
            policy, observations, questions, metrics
        ),
        "encoding JSON": lambda: encode(answer_act(policy, decided)),
        "gunicorn's parser": lambda: next(RequestParser(config, [request], client)),
        "Flask: WSGI, routing, hooks, and the policy": through_flask,
        "fast lane, one request": lambda: fast_lane.answer([request]),
        f"fast lane, {BATCH} requests": lambda: fast_lane.answer([request] * BATCH),
    }


def microseconds(part: Callable[[], object]) -> float:
    """Mean time per call, over `ROUND_SECONDS`."""
    calls, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < ROUND_SECONDS:
        for _ in range(10):
            part()
        calls += 10
    return elapsed / calls * 1e6


@click.command()
@click.argument("model_dir", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--rounds", type=click.IntRange(1), default=15, show_default=True, help="Number of rounds."
)
def main(model_dir: Path, rounds: int) -> None:
    """Time the parts of a request with one row, using the policy MODEL_DIR."""
    with tempfile.TemporaryDirectory() as folder:
        # As in the service, prometheus_client keeps its counts in files.
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
    click.echo(table([["part", "us per call"], *rows]))
    batch = statistics.median(timed[f"fast lane, {BATCH} requests"])
    one = statistics.median(timed["fast lane, one request"])
    per_request = (batch - one) / (BATCH - 1)
    per_call = one - per_request
    click.echo(f"fast lane: {per_call:.0f} us per call and {per_request:.0f} us per request")


if __name__ == "__main__":
    main()
