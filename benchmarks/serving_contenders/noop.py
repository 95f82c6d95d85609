"""The ceiling: a plain Flask app that decodes and encodes, and decides nothing.

    python -m benchmarks.serving_contenders.noop [--port 8000] [--workers 2] [--threads 8]

It runs under gunicorn's own threaded worker, with a socket for each worker (`reuse_port`), and
shares these options and their variables, such as SERVING_THREADS, with the service. It takes the
same requests; its answers have the same shape and constant numbers.
"""

from typing import Any

import click
import msgspec
import numpy as np
import numpy.typing as npt
import orjson
from flask import Flask, Response, request
from gunicorn.app.base import BaseApplication

from benchmarks.serving_services import KEEP_ALIVE_SECONDS
from serving.schemas import ActRequest
from serving.settings import Settings, settings_options


class Server(BaseApplication):
    """gunicorn with as many workers and threads as the service has."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        settings: dict[str, Any] = {
            "bind": f"{self.settings.host}:{self.settings.port}",
            "workers": self.settings.workers,
            "threads": self.settings.threads,
            "worker_class": "gthread",
            "reuse_port": True,
            "keepalive": int(KEEP_ALIVE_SECONDS),
            "control_socket_disable": True,
            "loglevel": "warning",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Make a worker's application; gunicorn calls it after the fork."""
        return create_app(self.settings.max_rows)


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


@click.command()
@settings_options("host", "port", "workers", "threads", "max_rows")
def main(**settings: Any) -> None:
    """Serve the no-op app."""
    Server(Settings(**settings)).run()


if __name__ == "__main__":
    main()
