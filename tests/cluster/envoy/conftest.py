"""What the tests with Envoy share."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cluster.envoy.machines import Envoy, Replica, envoy_program
from tests.conftest import Trained
from tests.faults.conftest import tell  # noqa: F401  # a fixture
from tests.pull.conftest import bucket  # noqa: F401  # a fixture
from tests.tools import require_program


class Balanced(NamedTuple):
    """Envoy and the services behind it."""

    envoy: Envoy
    replicas: list[Replica]


@contextmanager
def balancing(models: Path, folder: Path, count: int, *options: str) -> Iterator[Balanced]:
    """Run services, each with a models folder of its own, and Envoy in front of them."""
    envoy_program()
    require_program("openssl", "openssl")
    with ExitStack() as stack:
        replicas = []
        for number in range(count):
            own = shutil.copytree(models, folder / f"models-{number}")
            replica = Replica(own, folder / f"replica-{number}", *options)
            stack.callback(replica.close)
            replica.start()
            replicas.append(replica)
        (folder / "envoy").mkdir()
        envoy = Envoy.on_loopback(folder / "envoy", replicas)
        envoy.start()
        stack.callback(envoy.stop)
        envoy.wait_until_usable(replicas)
        yield Balanced(envoy, replicas)


@pytest.fixture
def balanced(trained: Trained, tmp_path: Path) -> Iterator[Balanced]:
    """Three services with a trained version."""
    with balancing(trained.models, tmp_path, 3, "--poll-seconds", "0.2") as running:
        yield running
