"""The ceiling: a plain Flask app that decodes and encodes, and decides nothing.

    python -m benchmarks.serving_contenders.noop run [the options of `python -m serving run`]

It is the service's command with this application in the place of the service's, and so with the
same gunicorn, worker class and hooks, but every request goes through Flask: it has no fast lane.
It takes the same requests; its answers have the same shape and constant numbers.
"""

from collections.abc import Sequence
from typing import Any
from unittest import mock

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
from flask import Flask, Response, request

from serving import cli
from serving.schemas import ActRequest
from serving.server.master import Server


class NoFastLane:
    """Leaves every request to Flask."""

    def answer(self, requests: Sequence[bytes]) -> list[None]:
        """As `serving.server.fastlane.FastLane.answer`."""
        return [None] * len(requests)


def load(server: Any) -> Flask:
    """Make a worker's application, in the place of `serving.server.master.Server.load`."""
    from serving.metrics import Metrics

    # The service's worker class counts in the one, and asks the other first.
    server.metrics, server.fast_lane = Metrics(), NoFastLane()
    return create_app(server.settings.max_rows)


def create_app(max_rows: int) -> Flask:
    """Flask's own routing, and an answer for each number of rows up to `max_rows`."""
    app = Flask(__name__, static_folder=None)
    decoder = msgspec.json.Decoder(ActRequest)
    # As many digits as the numbers of a policy have.
    columns: dict[str, npt.NDArray[Any]] = {
        "actions": np.ones(max_rows, np.int64),
        "action_logits": np.full((max_rows, 2), 0.30269915, np.float32),
        "action_probabilities": np.full((max_rows, 2), 0.6489569, np.float32),
        "log_probabilities": np.full(max_rows, -0.43238893, np.float32),
        "state_values": np.full(max_rows, 47.71798, np.float32),
    }
    rest = {"seed": 7, "model": {"name": "noop", "version": 1}, "warnings": []}

    @app.post("/act")
    def act() -> Response:
        rows = decoder.decode(request.get_data(cache=False)).observations
        assert isinstance(rows, list)  # the benchmark sends no single `observation`
        answer = {name: column[: len(rows)] for name, column in columns.items()} | rest
        return Response(
            orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY),
            content_type="application/json",
        )

    return app


if __name__ == "__main__":
    with mock.patch.object(Server, "load", load):
        cli.main()
