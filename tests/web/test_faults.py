"""Services that start late, stop and return, or swap their version."""

import random
import shutil
import socket
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.artefacts import publish
from tests.conftest import Trained, running_service
from tests.web.conftest import Visit, wait_until_live
from tests.web.test_live_page import number, wait_for

# Chromium logs each request that fails.
LOST = "Failed to load resource"


def fixed_port() -> int:
    """A free port outside the range from which the system assigns ports."""
    candidates = random.Random().sample(range(20_000, 30_000), 100)  # below the system's range
    for port in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("none of 100 ports is free")


@pytest.mark.long
def test_the_page_recovers_when_the_service_returns(
    trained: Trained, visit: Visit, tmp_path: Path
) -> None:
    options = ("--workers", "1", "--port", str(fixed_port()))
    with running_service(trained.models, tmp_path / "first", *options) as service:
        wait_until_live(service.url)
        page = visit(service.url, forgive=LOST)
        wait_for(page, "steps", "n >= 1")
    expect(page.locator("#unavailable")).to_have_text(
        "The service is unavailable (it cannot be reached). If it has stopped, "
        "python -m serving run or make serve starts it. Retrying."
    )
    stopped_at = number(page, "steps")
    with running_service(trained.models, tmp_path / "second", *options):
        expect(page.locator("#unavailable")).to_be_hidden()
        expect(page.locator("#announcement")).to_have_text("The service is available again.")
        wait_for(page, "steps", f"n > {stopped_at}")
        page.close()


def test_a_version_that_the_service_was_started_with_is_changed_by_a_restart(
    trained: Trained, visit: Visit, tmp_path: Path
) -> None:
    options = ("--workers", "1", "--pin", "9")
    models = shutil.copytree(trained.models, tmp_path / "models")
    with running_service(models, tmp_path / "log", *options) as service:
        wait_until_live(service.url)
        page = visit(f"{service.url}/models/cartpole", forgive="503")
        unavailable = page.locator("#unavailable")
        expect(unavailable).to_contain_text(
            "Version 9 of cartpole is selected, and it is not there"
        )
        expect(unavailable).to_contain_text(
            "If the service was started with --pin, restart it without that instead."
        )
        page.close()


@pytest.mark.long
def test_the_page_waits_for_a_model_and_shows_its_swap(
    trained: Trained, visit: Visit, tmp_path: Path
) -> None:
    versions = tmp_path / "models" / "cartpole"
    versions.parent.mkdir()
    with running_service(versions.parent, tmp_path / "log", "--workers", "1") as service:
        wait_until_live(service.url)
        page = visit(service.url, forgive=LOST)
        expect(page.locator("#unavailable")).to_contain_text("no version of cartpole")
        versions.mkdir()
        publish(trained.model_dir, versions / "1")
        expect(page.locator("#served-model")).to_have_text("cartpole version 1")
        expect(page.locator("#unavailable")).to_be_hidden()
        publish(trained.model_dir, versions / "2")
        expect(page.locator("#served-model")).to_have_text("cartpole version 2")
        expect(page.locator("#announcement")).to_have_text("Now served: cartpole version 2.")
        wait_for(page, "steps", "n >= 1")
        page.close()
