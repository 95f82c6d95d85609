"""A Ray cluster: connecting to it, and what every node of it must have (https://docs.ray.io)."""

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before importing Ray: send no statistics
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from training import ray_probe
from training.config import Environment
from training.errors import TrainingError, first_line
from training.libraries import VARIABLES
from training.ray_shares import RayShares
from training.shares import Maker, WorkerError

SECONDS_TO_CONNECT = 5
SECONDS_TO_PROBE = 60
MAX_RETRIES = 5  # of a task whose process or node is lost
OBJECT_STORE_BYTES = 512 * 1024**2  # of a local cluster: weights and rollouts are small
# HTTP/2's connection preface with an empty SETTINGS frame, and the type of the frame that a
# server answers with (RFC 9113, sections 3.4 and 6.5).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
SETTINGS = 4


class ClusterError(TrainingError):
    """There is no Ray cluster, or a node of it cannot do the work; the message says which."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        processors: of all nodes.
    """

    processors: int

    def workers(self, count: int, *, storable: bool) -> "RayWorkers":
        """Actors to step environments in.

        Args:
            count: how many; 0 for one per processor.
            storable: whether environments can continue from a pickle, see `training.storing`.
        """
        return RayWorkers(count or self.processors, storable)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Call a function for each item, one per processor at a time; yield results in item order.

        A call that is lost with its process or node is repeated.

        Raises:
            TrainingError: as the function does.
            WorkerError: the function raises another error, or was lost too often.
        """

        @ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
        def call(item: Any) -> Any:
            return function(item)

        for reference in [call.remote(item) for item in items]:
            yield result(reference)

    def require_same(self, environment: Environment, packages: Sequence[str]) -> None:
        """Check that every node has what this machine has.

        Args:
            environment: what is stepped there.
            packages: further ones needed there, besides those that step environments.

        Raises:
            ClusterError: a node differs or does not answer.
        """
        plain = tuple(environment._replace(kwargs=dict(environment.kwargs)))
        arguments = plain, environment.modules(), packages
        here = ray_probe.probe(*arguments)
        for node, there in _on_every_node(partial(ray_probe.probe, *arguments)):
            for what, value in here.items():
                if there.get(what) != value:
                    raise ClusterError(
                        f"Ray's node {node} differs: {what} is {there.get(what, 'missing')} there, "
                        f"{value} here"
                    )


@dataclass(frozen=True, slots=True)
class RayWorkers:
    """Ray actors; see `training.shares.Workers`."""

    count: int
    storable: bool

    def start(self, sizes: list[int], makers: list[Maker], *, one_episode: bool) -> RayShares:
        """See `Workers`."""
        if one_episode:
            return RayShares(sizes, makers, "first state")
        return RayShares(sizes, makers, "last state" if self.storable else "never")


@contextmanager
def connect(address: str) -> Iterator[Cluster]:
    """Connect to a cluster; at the end, shut it down if it is a local one.

    Standard output is redirected to standard error meanwhile, because Ray prints to it.

    Args:
        address: HOST:PORT, or "local" to start one on this machine.

    Raises:
        ClusterError: there is none, it has another version, or no processor.
    """
    local = address == "local"
    if not local:
        _require_server(address)
    inherited = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address,
            runtime_env={"env_vars": inherited},
            log_to_driver=False,
            logging_level=logging.ERROR,
            # These two apply only to a cluster that is started here.
            object_store_memory=OBJECT_STORE_BYTES if local else None,
            include_dashboard=False if local else None,
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split()) or first_line(error)
        if isinstance(error, ConnectionError):
            reason = f"{reason.rstrip('.')}: not a Ray cluster, or RAY_AUTH_TOKEN is wrong"
        raise ClusterError(f"no Ray cluster can be used at {address}: {reason}") from error
    signal.signal(signal.SIGTERM, handler)  # `init` has installed Ray's own
    with redirect_stdout(sys.stderr):
        try:
            processors = int(ray.cluster_resources().get("CPU", 0))
            if processors == 0:
                raise ClusterError(f"the Ray cluster at {address} has no processors")
            yield Cluster(processors)
        finally:
            ray.shutdown()  # this prints too: a node may have been lost just before


def _require_server(address: str) -> None:
    """Check that a gRPC server listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), SECONDS_TO_CONNECT) as connection:
            connection.sendall(PREFACE)
            answered = connection.recv(4)
    except (OSError, OverflowError) as error:
        raise ClusterError(f"there is no Ray cluster at {address}: {error}") from error
    if len(answered) < 4 or answered[3] != SETTINGS:
        raise ClusterError(f"there is no Ray cluster at {address}: something else answers there")


def result(reference: Any) -> Any:
    """What a task returned.

    Raises:
        TrainingError: as the task did.
        WorkerError: the task raised another error, or was lost too often.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, TrainingError):
            raise error.cause from None
        click.echo(error, err=True)
        raise WorkerError("a Ray task has failed") from error
    except RayError as error:
        raise WorkerError(f"a Ray task was lost: {first_line(error)}") from error


def _on_every_node(function: Callable[[], Any]) -> Iterator[tuple[str, Any]]:
    """Call a function on every node with processors; yield each node's name and answer.

    Raises:
        ClusterError: a node does not answer.
    """
    ray.cloudpickle.register_pickle_by_value(ray_probe)

    @ray.remote(num_cpus=0, max_retries=0)
    def probe() -> Any:
        return function()

    names, references = [], []
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) > 0:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            names.append(node["NodeManagerAddress"])
            references.append(probe.options(scheduling_strategy=strategy).remote())
    ray.cloudpickle.unregister_pickle_by_value(ray_probe)
    for name, reference in zip(names, references, strict=True):
        try:
            yield name, ray.get(reference, timeout=SECONDS_TO_PROBE)
        except RayError as error:
            reason = " ".join(str(error).split())
            raise ClusterError(f"Ray's node {name} cannot be used: {reason}") from error
