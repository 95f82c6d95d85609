"""A service that stops answering, and continues."""

import signal
import time

import pytest

from tests.cluster.envoy.conftest import Balanced
from tests.cluster.envoy.load import Load
from tests.faults.conftest import Tell

pytestmark = pytest.mark.cluster
PAUSE_SECONDS = 6.0  # less than the clients wait


def test_a_service_that_stops_for_a_while_delays_what_it_held_and_fails_nothing(
    balanced: Balanced, tell: Tell
) -> None:
    envoy, (slow, *others) = balanced
    with Load(envoy.url, envoy.certificate, 16, "plain") as load:
        time.sleep(1)
        begin = time.monotonic()
        slow.pause()
        envoy.wait_until_usable(others)
        ejected = time.monotonic() - begin
        held = envoy.active(slow)
        time.sleep(max(0.0, begin + PAUSE_SECONDS - time.monotonic()))
        slow.send(signal.SIGCONT)
        envoy.wait_until_usable(balanced.replicas)
        time.sleep(1)
        retried = envoy.count("upstream_rq_retry")
    late = [seconds for seconds in load.outcome.latencies if seconds > 1]
    tell(f"{load.outcome}; ejected within {ejected:.1f} s, with {held} requests in flight")
    assert load.outcome.failures == []
    # It is sent one more only while no other has fewer in flight, so at most 6 of 16; Envoy's two
    # threads may choose at once.
    assert len(late) == held
    assert 0 < held <= 7
    assert ejected < 5
    assert retried == 0
    assert load.outcome.answered > 1_000  # by the others, meanwhile
