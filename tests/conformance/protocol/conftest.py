"""Marks the cases in which a server is known to differ from a protocol's text."""

from pathlib import Path

import pytest

from tests.conformance.protocol.differences import DIFFERENCES, names_of, server_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent != Path(__file__).parent:
            continue
        for difference, cases in DIFFERENCES[server_of(item)].items():
            if not names_of(item).isdisjoint(cases):
                # A server that passes such a case fails the test: the difference must be found.
                item.add_marker(
                    pytest.mark.xfail(reason=difference, raises=AssertionError, strict=True)
                )
