"""Shared by the fault tests: figures at the end of pytest's output, and connections to read."""

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from serving.client import PolicyClient
from tests.conftest import Service, Trained, running_service
from tests.faults.framing import Ours

FIGURE = "figure of a fault test"

Tell = Callable[[str], None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Print a line about this test when all tests are done."""

    def add(line: str) -> None:
        # With the test's report, which also comes from the processes of pytest-xdist.
        request.node.user_properties.append((FIGURE, line))

    return add


@pytest.fixture(scope="module")
def single(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service of one worker."""
    log = tmp_path_factory.mktemp("single") / "log"
    with running_service(trained.models, log, "--workers", "1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        yield service


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def ours(listener: socket.socket) -> Iterator[Ours]:
    with closing(Ours(listener)) as connected:
        yield connected


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = []
    for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
        if getattr(report, "when", None) == "teardown":
            figures = [line for name, line in report.user_properties if name == FIGURE]
            if figures:
                lines += [report.nodeid, *(f"    {line}" for line in figures)]
    if lines:
        terminalreporter.section("figures of the fault tests")
    for line in lines:
        terminalreporter.write_line(line)
