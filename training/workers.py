"""Where environments are stepped: in this process, in several, or on a Ray cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from training.config import Environment
from training.envs import is_vectorised
from training.errors import TrainingError
from training.shares import Processes, Workers

if TYPE_CHECKING:
    from training.ray_cluster import Cluster


WITH_TENSORFLOW = ("tensorflow", "tensorflow-cpu")  # one of them, by platform


class NoRayError(TrainingError):
    """Ray is not installed."""


@contextmanager
def connected(
    address: str | None, environment: Environment, *packages: str
) -> Iterator["Cluster | None"]:
    """Connect to the Ray cluster at an address, if one is given, and check its nodes.

    Args:
        address: of the cluster, or None.
        environment: what is stepped on it.
        packages: further ones needed there, besides those that step environments.

    Raises:
        NoRayError: Ray is not installed.
        ClusterError: see `training.ray_cluster`.
    """
    if address is None:
        yield None
        return
    try:
        from training.ray_cluster import connect
    except ModuleNotFoundError as error:
        raise NoRayError(f"--ray needs actor-critic[ray]: {error}") from error
    with connect(address) as cluster:
        cluster.require_same(environment, packages)
        yield cluster


def chosen_workers(
    environment: Environment,
    count: int,
    cluster: "Cluster | None" = None,
    *,
    storable: bool = False,
) -> Workers | None:
    """What steps the environments: actors of a cluster, processes, or None for this process.

    Args:
        environment: what is stepped.
        count: how many; 0: one per processor of the cluster, or none without a cluster.
        cluster: of Ray, if any.
        storable: whether the environments can continue from a pickle, see `training.storing`.
    """
    if (count or cluster) and is_vectorised(environment):
        click.echo(f"Gymnasium steps {environment.id} itself, in this process", err=True)
        return None
    if cluster is not None:
        return cluster.workers(count, storable=storable)
    return Processes(count) if count else None
