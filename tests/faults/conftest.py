"""Figures of the fault tests, at the end of pytest's output."""

from collections.abc import Callable

import pytest

FIGURES = pytest.StashKey[dict[str, list[str]]]()

Tell = Callable[[str], None]


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Print a line about this test when all tests are done."""
    figures = request.config.stash.setdefault(FIGURES, {})
    return figures.setdefault(request.node.name, []).append


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
