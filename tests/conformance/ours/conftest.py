"""What is tested here is promised by this service alone."""

import pytest

from tests.conformance.servers import Server


@pytest.fixture(scope="session")
def server(ours: Server) -> Server:
    return ours
