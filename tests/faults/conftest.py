"""Shared by the fault tests: figures at the end of pytest's output, and connections to read."""

import socket
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.faults.framing import Ours

FIGURES = pytest.StashKey[dict[str, list[str]]]()

Tell = Callable[[str], None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Print a line about this test when all tests are done."""
    figures = request.config.stash.setdefault(FIGURES, {})
    return figures.setdefault(request.node.name, []).append


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def ours(listener: socket.socket) -> Iterator[Ours]:
    with closing(Ours(listener)) as connected:
        yield connected


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    figures = config.stash.get(FIGURES, {})
    if figures:
        terminalreporter.section("figures of the fault tests")
    for name, lines in figures.items():
        terminalreporter.write_line(name)
        for line in lines:
            terminalreporter.write_line(f"    {line}")
