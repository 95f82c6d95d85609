"""Far more small requests than are in flight as large ones: all are answered, none is shed."""

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.client import PolicyClient
from tests.conftest import Service, Trained, running_service
from tests.faults.conftest import Tell
from tests.faults.load import Load, Outcome
from tests.faults.wire import HEALTH, Wire, children, memory_mib

MAX_IN_FLIGHT = 8  # of each of two workers
CONNECTIONS = 4 * 80  # each with a request in flight all the time
SECONDS = 15.0
P99_BOUND_MS = 2_000.0
TOLERANCE_MIB = 32.0


class HealthChecks(threading.Thread):
    """Asks again and again whether the service is alive, on new connections."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.service = service
        self.done = threading.Event()
        self.statuses: list[int] = []

    def run(self) -> None:
        while not self.done.wait(0.1):
            with Wire(self.service.url) as wire:
                self.statuses.append(wire.ask(HEALTH).status)


def measured(service: Service, seconds: float) -> Outcome:
    """A load that the service can carry."""
    with Load(service.url, 4) as load:
        time.sleep(seconds)
    assert load.outcome.sent == load.outcome.statuses[200]
    return load.outcome


@pytest.mark.long
def test_decisions_are_not_shed_and_overload_does_not_last(
    trained: Trained, tmp_path: Path, tell: Tell
) -> None:
    options = ("--workers", "2", "--max-in-flight", str(MAX_IN_FLIGHT))
    with running_service(trained.models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        tell(f"before: {measured(service, 3)}")
        workers = children(service.process.pid)
        memory = [memory_mib(worker) for worker in workers]
        checks = HealthChecks(service)
        checks.start()
        with ExitStack() as stack:
            loads = [stack.enter_context(Load(service.url, CONNECTIONS // 4)) for _ in range(4)]
            time.sleep(SECONDS)
        checks.done.set()
        checks.join()
        outcomes = [load.outcome for load in loads]
        for outcome in outcomes:
            tell(f"overload: {outcome}")
        after = measured(service, 3)
        tell(f"after: {after}; {len(checks.statuses)} health checks answered")
        grown = [memory_mib(worker) - mib for worker, mib in zip(workers, memory, strict=True)]
        tell(f"memory of the workers grew by {', '.join(f'{mib:.1f}' for mib in grown)} MiB")
        assert children(service.process.pid) == workers
        assert max(grown) < TOLERANCE_MIB
        assert set(checks.statuses) == {200}
        assert after.percentile_ms(99) < P99_BOUND_MS
        for outcome in outcomes:
            # 503 counts only with Retry-After; anything else, and every reset, is here.
            assert (outcome.wrong, outcome.lost_ports) == ([], [])
            assert (outcome.unanswered, outcome.unused, outcome.refused) == (0, 0, 0)
            assert outcome.sent == sum(outcome.statuses.values())
            assert set(outcome.statuses) == {200}
            assert outcome.percentile_ms(99) < P99_BOUND_MS
