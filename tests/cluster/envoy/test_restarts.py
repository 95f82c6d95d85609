"""A service that is killed or replaced under load costs no request but those it held."""

import time

import pytest

from tests.cluster.envoy.conftest import Balanced
from tests.cluster.envoy.load import Load
from tests.faults.conftest import Tell

pytestmark = pytest.mark.cluster
CLIENTS = 8


def test_a_killed_service_costs_the_requests_that_it_held_and_policy_client_none(
    balanced: Balanced, tell: Tell
) -> None:
    envoy, (victim, *others) = balanced.envoy, balanced.replicas
    with (
        Load(envoy.url, envoy.certificate, CLIENTS, "plain") as plain,
        Load(envoy.url, envoy.certificate, CLIENTS, "policy") as policy,
    ):
        time.sleep(2)
        killed = time.monotonic()
        victim.kill()
        envoy.wait_until_usable(others)
        ejected = time.monotonic() - killed
        time.sleep(3)
        held = envoy.count("upstream_cx_destroy_remote_with_active_rq")
        retried = envoy.count("upstream_rq_retry")
    tell(f"plain clients: {plain.outcome}")
    tell(f"PolicyClient: {policy.outcome}")
    tell(f"{held} requests held at the kill, {retried} retried, ejected within {ejected:.1f} s")
    for failure in plain.outcome.failures:
        assert "503 upstream connect error" in failure.reason
    assert len(plain.outcome.failures) <= held <= 2 * CLIENTS
    assert policy.outcome.failures == []
    assert ejected < 4


def test_a_rolling_restart_under_load_loses_nothing(balanced: Balanced, tell: Tell) -> None:
    envoy = balanced.envoy
    with (
        Load(envoy.url, envoy.certificate, CLIENTS, "plain") as plain,
        Load(envoy.url, envoy.certificate, CLIENTS, "policy") as policy,
    ):
        begin = time.monotonic()
        for replica in balanced.replicas:
            replica.terminate()
            replica.start()
            envoy.wait_until_usable(balanced.replicas)
        seconds = time.monotonic() - begin
        retried = envoy.count("upstream_rq_retry")
    tell(f"three restarts in {seconds:.1f} s, {retried} retries by Envoy")
    tell(f"plain clients: {plain.outcome}")
    tell(f"PolicyClient: {policy.outcome}")
    assert plain.outcome.failures == policy.outcome.failures == []
