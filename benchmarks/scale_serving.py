"""The throughput of replicas of the service behind Envoy, and a model that predicts more cores.

    python -m benchmarks.scale_serving --models models [--seconds 5]

1, 2 and 3 services of one worker, and Envoy with the configuration of compose's profile `envoy`,
share this machine's cores with wrk, which keeps 64 connections busy with requests of one row. The
model counts processor time: a request costs a fixed time in a service, in Envoy and in wrk,
measured with three services; a service has one core, and all processes share the machine's cores.
The model is checked against the measurements: the exit status is 1 if it is wrong by more than 25%.
Needs `wrk` and `make .cluster/installed`.
"""

import os
import resource
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click

from benchmarks.common import median_and_range, table
from benchmarks.serving_load import full_load, json_body, require_wrk
from benchmarks.serving_services import process_seconds, running
from tests.cluster.envoy.machines import Envoy

REPLICAS = (1, 2, 3)
CONNECTIONS = 64
ROUNDS = 3
CORES = (10, 1_000, 100_000)
TOLERANCE = 0.25
HEALTH_CHECKS = 1.0  # a second, from each Envoy to each service


class Address(NamedTuple):
    """Where a service listens."""

    address: str


class Model(NamedTuple):
    """Seconds of processor time for a request."""

    service: float
    envoy: float
    client: float

    def requests(self, replicas: int, cores: int) -> float:
        """Requests a second of replicas with a worker each, on cores that all share."""
        return min(replicas / self.service, cores / sum(self))

    def split(self, cores: int) -> tuple[int, int, float]:
        """Cores for services and for Envoy, without clients, and the requests a second."""
        per_core = 1 / (self.service + self.envoy)
        envoys = max(1, round(cores * self.envoy * per_core))
        return cores - envoys, envoys, cores * per_core


class Measured(NamedTuple):
    """One round of load."""

    requests: float  # a second
    cpu: Model


def measure(models: Path, replicas: int, seconds: int) -> Measured:
    """Run that many services behind Envoy under full load."""
    body = json_body(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services = [stack.enter_context(running("ours", models, 1)) for _ in range(replicas)]
        for service in services:
            service.wait_until_ready(body, 1)
        addresses = [Address(urlsplit(service.url).netloc) for service in services]
        envoy = Envoy.on_loopback(folder, addresses)
        envoy.start()
        stack.callback(envoy.stop)
        envoy.wait_until_usable(addresses)
        full_load(envoy.url, body, connections=CONNECTIONS, seconds=1)

        def cpu_seconds() -> Model:
            return Model(
                service=sum(service.cpu_seconds() for service in services),
                envoy=process_seconds(envoy.process.pid),
                client=children_seconds(),
            )

        before = cpu_seconds()
        load = full_load(envoy.url, body, connections=CONNECTIONS, seconds=seconds)
        after = cpu_seconds()
    cpu = [(end - begin) / load.requests for begin, end in zip(before, after, strict=True)]
    return Measured(load.requests / load.seconds, Model(*cpu))


def children_seconds() -> float:
    """Processor time of the children of this process that have ended, such as wrk."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@click.command(context_settings={"show_default": True})
@click.option("--models", type=click.Path(exists=True, path_type=Path), default="models")
@click.option("--seconds", type=click.IntRange(min=1), default=5, help="Of each measurement.")
def main(models: Path, seconds: int) -> None:
    """Measure requests a second, fit the model and compare; then ask it about more cores."""
    require_wrk()
    cores = os.cpu_count() or 1
    rounds: dict[int, list[Measured]] = {replicas: [] for replicas in REPLICAS}
    for _ in range(ROUNDS):
        for replicas, measured in rounds.items():
            measured.append(measure(models, replicas, seconds))
    model = Model(
        *(statistics.median(part) for part in zip(*(one.cpu for one in rounds[3]), strict=True))
    )
    parts = ", ".join(f"{name} {1e6 * value:.1f} us" for name, value in model._asdict().items())
    click.echo(f"processor time of a request: {parts}\n")
    rows = [["replicas", "requests/s, median (min..max)", "of the model", "difference"]]
    errors = []
    for replicas, measured in rounds.items():
        speeds = [one.requests for one in measured]
        predicted = model.requests(replicas, cores)
        errors.append(predicted / statistics.median(speeds) - 1)
        rows.append(
            [str(replicas), median_and_range(speeds, 0), f"{predicted:,.0f}", f"{errors[-1]:+.1%}"]
        )
    click.echo(table(rows))
    rows = [["cores", "for services", "for Envoy", "requests/s", "health checks/s"]]
    for number in CORES:
        services, envoys, requests = model.split(number)
        checks = HEALTH_CHECKS * services * envoys
        texts = (f"{value:,.0f}" for value in (number, services, envoys, requests, checks))
        rows.append(list(texts))
    click.echo(f"\n{table(rows)}")
    if max(map(abs, errors)) > TOLERANCE:
        sys.exit(f"the model is wrong by more than {TOLERANCE:.0%}")


if __name__ == "__main__":
    main()
