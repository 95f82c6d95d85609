"""Figures of the fault tests, at the end of pytest's output."""

from collections.abc import Callable

import pytest

FIGURES = pytest.StashKey[list[str]]()

Tell = Callable[[str], None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Print a line about this test when all tests are done."""
    lines = request.config.stash.setdefault(FIGURES, [])
    return lambda line: lines.append(f"{request.node.name}\n    {line}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("figures of the fault tests")
    for line in lines:
        terminalreporter.write_line(line)
