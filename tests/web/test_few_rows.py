"""A service that takes few rows per request: the pages do without what needs more."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from serving.client import PolicyClient
from tests.conftest import Service, Trained, running_service
from tests.web.conftest import Visit
from tests.web.test_live_page import number, wait_for

# Chromium logs each request that is refused.
TOO_MANY_ROWS = "400"


@pytest.fixture(scope="module")
def small(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("small")
    models = shutil.copytree(trained.models, folder / "models")
    options = ("--workers", "1", "--max-rows", "100")
    with running_service(models, folder / "log", *options) as running:
        PolicyClient(running.url).wait_until_ready(60)
        yield running


def test_the_carts_run_without_the_map(small: Service, visit: Visit) -> None:
    page = visit(small.url, forgive=TOO_MANY_ROWS)
    wait_for(page, "steps", "n >= 20")  # the map is asked for every quarter of a second
    expect(page.locator("#problem")).to_be_hidden()
    # What was refused is not asked for again.
    again: list[str] = []
    page.on("request", lambda one: again.append(one.url) if "infer" in one.url else None)
    page.get_by_role("button", name="Push cart right").click()
    steps = number(page, "steps")
    wait_for(page, "steps", f"n >= {steps + 20}")
    assert again == []


def test_a_card_is_shown_without_the_map_and_the_strips(small: Service, visit: Visit) -> None:
    page = visit(f"{small.url}/models/cartpole", forgive=TOO_MANY_ROWS)
    expect(page.locator("#strips-hint")).to_be_hidden()
    expect(page.locator("#heat-section")).to_have_attribute("hidden", "")
    expect(page.locator(".number canvas:visible")).to_have_count(0)
    expect(page.locator("#learning-curve, #ranges").last).to_be_visible()
    page.get_by_role("button", name="Random numbers").click()
    page.wait_for_timeout(500)  # the strips were asked for after 150 ms
    expect(page.locator(".chosen")).to_have_count(1)
    expect(page.locator("#form-status")).not_to_contain_text("refuses")
    expect(page.locator("#problem")).to_be_hidden()
