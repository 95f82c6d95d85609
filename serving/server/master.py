"""gunicorn: worker processes around the application."""

import contextlib
import itertools
import logging
import os
import shutil
import socket
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.workers.base import Worker

from serving.api.keys import Keys, KeysError, read_keys
from serving.policy.tensorflow_import import import_tensorflow
from serving.registry.trial import Trials
from serving.rpc import THREADS
from serving.server.balancing import ConnectionBalancer
from serving.server.gunicorn_adapter import WORKER_BOOT_ERROR, Arbiter, living_workers
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.record.files import Sign

logger = logging.getLogger(__name__)

# prometheus_client reads this when it is imported, so it is imported only after this is set.
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# The kinds of metrics by prometheus_client's names; each worker has one file per kind.
METRICS_KINDS = ("counter", "gauge_liveall", "gauge_mostrecent", "histogram")
METRICS_BYTES = 256 * 1024  # of each file: several times what all routes and a few models need


class Server(BaseApplication):
    """gunicorn with our settings, on a socket that is already bound.

    TensorFlow is imported in the master, so that workers share its memory, but no operation
    runs there: TensorFlow hangs in a worker if it has run one before the fork.
    """

    versions_folders: list[Path]  # of the copies of versions that all workers share
    trials: Trials  # of this worker
    slot: int  # of this worker

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        reserved: socket.socket | None,
        keys: Keys,
        sign: "Sign | None",
    ) -> None:
        """Serve HTTP on `listener`, and gRPC on the address of `reserved`.

        `sign` signs the files of the decision log.
        """
        self.settings = settings
        self.keys = keys
        self.sign = sign
        # The old workers of a few reloads may still be there.
        self.balancer = ConnectionBalancer(4 * settings.workers)
        self.descriptor = listener.detach()  # gunicorn closes it
        self.reserved = reserved  # open for as long as this process lives
        self.rpc_address = None if reserved is None else address(reserved)
        super().__init__()

    def load_config(self) -> None:
        """Set what differs from gunicorn's defaults."""
        settings: dict[str, Any] = {
            "bind": f"fd://{self.descriptor}",
            "workers": self.settings.workers,
            "worker_class": "serving.server.worker.Worker",
            # The watchdog looks after requests; this is for a worker that hangs as a whole.
            "timeout": int(self.settings.request_timeout) + 30,
            "control_socket_disable": True,
            "worker_tmp_dir": os.environ.get(METRICS_FOLDER),  # a reload keeps it
            "logger_class": "serving.logs.GunicornLogger",
            "on_starting": on_starting,
            "pre_fork": pre_fork,
            "post_fork": post_fork,
            "child_exit": child_exit,
            "worker_exit": worker_exit,
            "on_exit": on_exit,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def reload(self) -> None:
        """Read the keys again; gunicorn calls it in the master at SIGHUP, before new workers.

        Workers do not read them: one that failed to start because of them would end the service.
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
        import numpy as np

        from serving.api.app import create_api
        from serving.metrics import Metrics
        from serving.record.log import DecisionLog
        from serving.registry.repository import Repository
        from serving.registry.store import Store
        from serving.statistics import SharedArrays, Statistics

        folder = Path(os.environ[METRICS_FOLDER])
        statistics = Statistics(folder / "statistics", self.slot)
        comparisons = SharedArrays(folder / "comparisons", self.slot, np.float64)
        metrics = Metrics(statistics, comparisons)
        metrics.worker_starts.inc()
        store = Store(*self.versions_folders)
        repository = Repository(self.settings, metrics, self.trials, store)
        repository.start()
        self.log = None
        if self.settings.decision_log is not None:
            self.log = DecisionLog(self.settings, metrics, self.sign)
        self.api = create_api(self.settings, repository, metrics, self.keys, self.log)
        return self.api.flask

    def run(self) -> None:
        """Start the master."""
        Arbiter(self).run()


def bind(host: str, port: int) -> socket.socket:
    """Bind the address first, so that a wrong one is reported before anything is started.

    gunicorn listens on it later. A connection made before it sets its options would be
    without TCP_NODELAY and wait 40 ms for every answer.

    Raises:
        OSError: the address is in use or not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    where: tuple[Any, ...] = (host, port)
    if "%" in host:  # the zone of a link-local address, which `bind` takes as a number
        where = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except OSError:
        listener.close()
        raise
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """Take the address on which each worker will listen for gRPC; this socket does not listen.

    Raises:
        OSError: the address is in use, even by another service of this user, or not this machine's.
    """
    reserved = bind(host, port)
    # After the bind, which would otherwise share an address with another socket that has it set.
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return reserved


def address(sock: socket.socket) -> str:
    """The IP address and port of a socket, as a URL has them."""
    host, port, *scope = sock.getsockname()
    if scope and scope[1]:  # of a link-local address
        host += f"%{socket.if_indextoname(scope[1])}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def on_starting(arbiter: Any) -> None:
    """Prepare in the master what all workers share."""
    require_threads(arbiter.app.settings)
    # Before folders are made: a signal in the seconds of this import would leave them behind.
    import_tensorflow()
    # In memory if possible: a full disk must not stop the workers that write there.
    try:
        folder = tempfile.mkdtemp(prefix="serving-", dir="/dev/shm")
    except OSError:
        folder = tempfile.mkdtemp(prefix="serving-")
    arbiter.app.versions_folders = [Path(folder) / "versions"]
    arbiter.app.versions_folders[0].mkdir()
    # A second one on the disk, which has more room.
    with contextlib.suppress(OSError):
        arbiter.app.versions_folders.append(Path(tempfile.mkdtemp(prefix="serving-")))
    os.environ[METRICS_FOLDER] = folder
    # For the workers' heartbeat files; gunicorn ends if one cannot be made.
    arbiter.cfg.set("worker_tmp_dir", folder)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # of Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def require_threads(settings: Settings) -> None:
    """Exit if the workers could not start all of their threads.

    TensorFlow aborts a worker that cannot start one, and gunicorn would replace it for ever.
    """
    # Each worker has `--threads`, seven others (one of them a process), and one that writes the
    # decision log.
    each = settings.threads + 7 + (settings.decision_log is not None)
    if settings.grpc_port is not None:
        # Those that handle calls, one that decides, one that checks the health, and grpcio's own.
        each += THREADS + 5 + _cores()
    count = settings.workers * each + 6  # the trial of a version takes six
    barrier = threading.Barrier(count)
    with ThreadPoolExecutor(count) as executor:
        try:
            list(executor.map(barrier.wait, [None] * count))
        except RuntimeError as error:
            barrier.abort()
            reason = f"{error}; is there a limit of processes?"
            logger.error("the %d threads of the workers cannot be started: %s", count, reason)
            sys.exit(WORKER_BOOT_ERROR)


def pre_fork(arbiter: Any, worker: Worker) -> None:
    """Give a new worker the first slot that no living worker has."""
    taken = {other.slot for other in living_workers(arbiter)}
    worker.slot = next(slot for slot in itertools.count() if slot not in taken)


def post_fork(_arbiter: object, worker: Worker) -> None:
    """Continue the metrics files of the worker that had the slot before.

    With files per process id, every restart would leave more files that each scrape has to read.
    Their space is allocated here: the kernel kills a process that writes to a mapped file on a
    full file system.
    """
    from serving import prometheus_adapter

    # If memory runs out, the kernel should kill a worker, which is replaced, not the master.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    worker.app.slot = worker.slot
    prometheus_adapter.keep_values_in_files(lambda: worker.slot)
    for kind in METRICS_KINDS:
        path = Path(os.environ[METRICS_FOLDER]) / f"{kind}_{worker.slot}.db"
        if path.exists():
            continue
        # A scrape reads every .db, and fails if one is empty.
        temporary = path.with_suffix(".new")
        try:
            temporary.write_bytes(bytes(METRICS_BYTES))
            temporary.replace(path)
        except OSError as error:
            logger.error("no room for the metrics of this worker, they are left out: %s", error)
            temporary.unlink(missing_ok=True)
            prometheus_adapter.keep_values_in_memory()
            break


def child_exit(arbiter: Any, worker: Worker) -> None:
    """Remove the live gauges of a worker that is gone; its other metrics stay."""
    from prometheus_client.multiprocess import mark_process_dead

    arbiter.app.balancer.withdraw(worker.slot)
    mark_process_dead(worker.slot)


def on_exit(arbiter: Any) -> None:
    """Remove the temporary folders."""
    for folder in (os.environ[METRICS_FOLDER], *arbiter.app.versions_folders):
        shutil.rmtree(folder, ignore_errors=True)


def worker_exit(_arbiter: object, worker: Worker) -> None:
    """End a worker whose requests are answered, without Python's own clean-up.

    That clean-up can wait for ever for TensorFlow's threads, if one still loads a version:
    gunicorn would kill the worker only 30 seconds later.
    """
    if worker.booted:  # otherwise its exit status tells gunicorn not to try again
        if worker.app.log is not None:
            worker.app.log.close()
        os._exit(0)
