"""What the tests with Envoy share."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.envoy.machines import Envoy, Replica, envoy_program
from tests.conftest import Trained
from tests.faults.conftest import tell  # noqa: F401  # a fixture
from tests.tools import require_program


class Balanced:
    """Three services and Envoy, all running."""

    def __init__(self, envoy: Envoy, replicas: list[Replica]) -> None:
        self.envoy = envoy
        self.replicas = replicas


@pytest.fixture
def balanced(trained: Trained, tmp_path: Path) -> Iterator[Balanced]:
    """Three machines, each with a models folder of its own, and Envoy in front of them."""
    envoy_program()
    require_program("openssl", "openssl")
    with ExitStack() as stack:
        replicas = []
        for number in range(3):
            models = shutil.copytree(trained.models, tmp_path / f"models-{number}")
            replica = Replica(models, tmp_path / f"replica-{number}")
            stack.callback(replica.close)
            replica.start()
            replicas.append(replica)
        (tmp_path / "envoy").mkdir()
        envoy = Envoy.on_loopback(tmp_path / "envoy", replicas)
        envoy.start()
        stack.callback(envoy.stop)
        envoy.wait_until_usable(replicas)
        yield Balanced(envoy, replicas)
