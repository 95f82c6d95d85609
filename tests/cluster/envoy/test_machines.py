"""Several machines, found by their name, with the very file that compose's profile runs."""

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest

from tests.cluster.envoy.load import CLIENT_TIMEOUT, Load
from tests.cluster.envoy.machines import Envoy, Replica, envoy_program
from tests.cluster.envoy.namespaces import Machine, Network, network
from tests.conftest import Trained, wait_until
from tests.faults.conftest import Tell

pytestmark = pytest.mark.cluster


class Cluster(NamedTuple):
    network: Network
    envoy: Envoy
    replicas: list[Replica]


@pytest.fixture(scope="module")
def cluster(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three machines with a service each, and one with Envoy; tests must leave them so."""
    envoy_program()
    folder = tmp_path_factory.mktemp("machines")
    with ExitStack() as stack:
        made = stack.enter_context(network(folder, 3))
        replicas = []
        for number, machine in enumerate(made.machines):
            models = shutil.copytree(trained.models, folder / f"models-{number}")
            where = f"{machine.address}:8000"
            own = folder / f"replica-{number}"
            replica = Replica(models, own, address=where, within=machine.within)
            stack.callback(replica.close)
            replica.start()
            replicas.append(replica)
        (folder / "envoy").mkdir()
        envoy = Envoy(folder / "envoy", within=made.balancer.within)
        envoy.start()
        stack.callback(envoy.stop)
        envoy.wait_until_usable(replicas)
        yield Cluster(made, envoy, replicas)


@pytest.fixture
def cut_off(cluster: Cluster) -> Iterator[Machine]:
    """The first machine, which a test cuts off."""
    machine = cluster.network.machines[0]
    yield machine
    machine.reconnect()


def test_a_machine_that_is_cut_off_costs_what_it_held_and_policy_client_none(
    cluster: Cluster, cut_off: Machine, tell: Tell
) -> None:
    envoy, (away, *others) = cluster.envoy, cluster.replicas
    within = cluster.network.balancer.within
    with (
        Load(envoy.url, envoy.certificate, 8, "plain", within=within) as plain,
        Load(envoy.url, envoy.certificate, 8, "policy", within=within) as policy,
    ):
        time.sleep(2)
        begin = time.monotonic()
        cut_off.cut_off()
        envoy.wait_until_usable(others)
        ejected = time.monotonic() - begin
        time.sleep(1)  # connections that are being made fail in half a second
        held = envoy.active(away)
        retried = envoy.count("upstream_rq_retry")
        time.sleep(max(0.0, begin + CLIENT_TIMEOUT + 1 - time.monotonic()))
        cut_off.reconnect()
        envoy.wait_until_usable(cluster.replicas)
        before = away.actions()
        wait_until(lambda: away.actions() > before, 10)
        time.sleep(1)
    tell(f"plain clients: {plain.outcome}")
    tell(f"PolicyClient: {policy.outcome}")
    tell(f"{held} held, {retried} retries by Envoy, ejected within {ejected:.1f} s")
    late = [seconds for seconds in policy.outcome.latencies if seconds >= CLIENT_TIMEOUT]
    assert policy.outcome.failures == []
    assert len(plain.outcome.failures) + len(late) == held
    for failure in plain.outcome.failures:
        assert "Read timed out" in failure.reason
    assert ejected < 5


def test_envoy_starts_while_a_machine_is_cut_off(
    cluster: Cluster, cut_off: Machine, tell: Tell
) -> None:
    envoy, (_, *others) = cluster.envoy, cluster.replicas
    within = cluster.network.balancer.within
    cut_off.cut_off()
    envoy.stop()
    begin = time.monotonic()
    envoy.start()
    envoy.wait_until_live()
    seconds = time.monotonic() - begin
    assert envoy.usable() == {one.address for one in others}
    with Load(envoy.url, envoy.certificate, 4, "plain", within=within) as load:
        time.sleep(1)
    tell(f"Envoy listened {seconds:.1f} s after its start; {load.outcome}")
    assert load.outcome.failures == []
    assert seconds < 3
    cut_off.reconnect()
    envoy.wait_until_usable(cluster.replicas)


def test_services_are_found_and_left_by_their_name(cluster: Cluster, tell: Tell) -> None:
    envoy, replicas = cluster.envoy, cluster.replicas
    network, within = cluster.network, cluster.network.balancer.within
    with Load(envoy.url, envoy.certificate, 8, "plain", within=within) as load:
        begin = time.monotonic()
        replicas[2].terminate()
        network.name(network.machines[:2])
        wait_until(lambda: len(envoy.hosts()) == 2, 15)
        left = time.monotonic() - begin
        replicas[2].start()
        network.name(network.machines)
        envoy.wait_until_usable(replicas)
        before = replicas[2].actions()
        wait_until(lambda: replicas[2].actions() > before, 10)
    tell(f"a service was removed {left:.1f} s after SIGTERM; {load.outcome}")
    assert load.outcome.failures == []
