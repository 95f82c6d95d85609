"""gunicorn: worker processes around the application."""

import gc
import importlib
import itertools
import logging
import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.workers.base import Worker

from serving.api.keys import Keys, KeysError, read_keys
from serving.server.balancing import Shares
from serving.settings import Settings

logger = logging.getLogger(__name__)

# Read by prometheus_client when it is imported, which is therefore done after it is set.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# prometheus_client's names of the kinds of metrics there are; each process has a file a kind.
METRICS_KINDS = ("counter", "gauge_liveall", "gauge_mostrecent", "histogram")
METRICS_BYTES = 256 * 1024  # of a file; several times what all routes and a few models take
# Of one worker, below the usual limit of 1,024 open files; others wait in the kernel's queue.
MAX_CONNECTIONS = 900


class Server(BaseApplication):
    """gunicorn with our settings, on a socket that is already bound.

    TensorFlow is imported in the master, where its memory is shared, but no operation runs
    there: a TensorFlow that has run one and is then forked hangs.
    """

    def __init__(self, settings: Settings, listener: socket.socket, keys: Keys) -> None:
        self.settings = settings
        self.keys = keys
        # The old workers of a few reloads may still be there.
        self.shares = Shares(4 * settings.workers)
        self.descriptor = listener.detach()  # gunicorn closes it
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        settings: dict[str, Any] = {
            "bind": f"fd://{self.descriptor}",
            "workers": self.settings.workers,
            "worker_class": "serving.server.worker.Worker",
            "threads": self.settings.threads,
            "keepalive": 75,
            # The worker looks after its requests itself; this is for a worker that is stuck whole.
            "timeout": int(self.settings.request_timeout) + 30,
            "worker_connections": MAX_CONNECTIONS,
            "control_socket_disable": True,
            "worker_tmp_dir": os.environ.get(METRICS_FOLDER),  # set when SIGHUP comes here again
            "logger_class": "serving.logs.GunicornLogger",
            "on_starting": prepare,
            "pre_fork": take_place,
            "post_fork": keep_metrics_there,
            "child_exit": forget_worker,
            "worker_exit": leave_at_once,
            "on_exit": clean_up,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def reload(self) -> None:
        """Read the keys again; gunicorn calls it in the master at SIGHUP, before new workers.

        Never in a worker: one that could not start for want of keys would end the service.
        """
        super().reload()
        try:
            self.keys = read_keys(self.settings.api_keys_file)
        except KeysError as error:
            logger.error("the API keys stay as they were: %s", error)
        else:
            logger.info("%d API keys", len(self.keys))

    def load(self) -> Flask:
        """Make a worker's application; gunicorn calls it after the fork."""
        from serving.api.app import create_app
        from serving.metrics import Metrics
        from serving.registry.repository import Repository
        from serving.server.fastlane import FastLane

        self.metrics = Metrics()
        self.metrics.worker_starts.inc()
        repository = Repository(self.settings, self.metrics)
        repository.start()
        self.fast_lane = FastLane(repository, self.settings, self.metrics, self.keys)
        return create_app(self.settings, repository, self.metrics, self.keys)


def bind(host: str, port: int) -> socket.socket:
    """Take the address, so that a wrong one is told before anything is started.

    gunicorn listens on it later. A connection made before it sets its options would be
    without TCP_NODELAY and wait 40 ms for every answer.

    Raises:
        OSError: the address is in use or not of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def prepare(arbiter: Any) -> None:
    """Do once in the master what every worker needs."""
    # In memory where that can be: a full disk must not stop the workers that write there.
    try:
        folder = tempfile.mkdtemp(prefix="serving-", dir="/dev/shm")
    except OSError:
        folder = tempfile.mkdtemp(prefix="serving-")
    os.environ[METRICS_FOLDER] = folder
    # Here a worker shows that it lives; without a file for that, gunicorn ends as a whole.
    arbiter.cfg.set("worker_tmp_dir", folder)
    import_tensorflow()


def take_place(arbiter: Any, worker: Worker) -> None:
    """Give a new worker the first number that no living one has."""
    taken = {other.place for other in arbiter.WORKERS.values()}
    worker.place = next(place for place in itertools.count() if place not in taken)


def keep_metrics_there(_arbiter: object, worker: Worker) -> None:
    """Count on from the numbers of the worker that had the place before.

    With files for each process id, every restart would leave some for all scrapes to read.
    Their room is taken here: the kernel kills a process that writes where none is left.
    """
    from prometheus_client import values

    values.ValueClass = values.MultiProcessValue(lambda: worker.place)
    for kind in METRICS_KINDS if sys.platform == "linux" else ():
        path = Path(os.environ[METRICS_FOLDER]) / f"{kind}_{worker.place}.db"
        try:
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, METRICS_BYTES)
        except OSError as error:
            logger.error("no room for the metrics of this worker, they are left out: %s", error)
            path.unlink(missing_ok=True)  # it is empty
            values.ValueClass = values.MutexValue
            break


def forget_worker(arbiter: Any, worker: Worker) -> None:
    """Drop what a worker that is gone said about the present; its counts stay."""
    from prometheus_client.multiprocess import mark_process_dead

    arbiter.app.shares.forget(worker.place)
    mark_process_dead(worker.place)


def clean_up(_arbiter: object) -> None:
    """Leave nothing behind."""
    shutil.rmtree(os.environ[METRICS_FOLDER], ignore_errors=True)


def leave_at_once(_arbiter: object, worker: Worker) -> None:
    """End a worker whose requests are answered, without Python's own clean-up.

    That clean-up can wait for ever for TensorFlow's threads, if one still loads a version:
    gunicorn would kill the worker only 30 seconds later.
    """
    if worker.booted:  # else its status tells gunicorn not to try again
        os._exit(0)


def import_tensorflow() -> None:
    """Import TensorFlow without the lines that it prints about itself while it loads."""
    # Whole blocks of rows give the same numbers in every batch only with these kernels.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # No Keras is used: naming the legacy one, which is not installed, spares its import.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    standard_error = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    # Collecting garbage again and again is a third of the import, and there is none.
    gc.disable()
    try:
        importlib.import_module("serving.policy.savedmodel")
    finally:
        gc.enable()
        os.dup2(standard_error, 2)
        os.close(standard_error)
    # What was imported stays, and a worker that never looks through it shares its memory.
    gc.freeze()
