"""A service with API keys: a visitor enters one once, for all pages."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import Service, Trained, running_with_key
from tests.web.conftest import Visit
from tests.web.test_live_page import wait_for

KEY = "a-key-that-a-visitor-enters"
# Chromium logs each request that is answered 401.
UNAUTHORIZED = "401"

# Storage raises as it does where a browser blocks it.
NO_STORAGE = """Object.defineProperty(window, "sessionStorage", {
    get() { throw new DOMException("denied", "SecurityError"); },
});"""


@pytest.fixture(scope="module")
def keyed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_with_key(trained.models, tmp_path_factory.mktemp("keyed"), KEY) as service:
        yield service


def enter(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Use this key").click()


def expect_content(page: Page, path: str) -> None:
    """What a page shows only with an answer of the service."""
    if path == "/":
        wait_for(page, "steps", "n >= 1")
    elif path == "/docs":
        expect(page.get_by_role("heading", name="POST /act", exact=True)).to_be_visible()
    else:
        expect(page.locator("#heat-section")).to_be_visible()
    expect(page.locator("#served-model")).to_have_text("cartpole version 1")


LINKS = {"/": "Live", "/models/cartpole": "Policy card", "/docs": "HTTP API"}


@pytest.mark.parametrize("first", LINKS)
def test_a_key_that_was_entered_on_one_page_opens_all(
    first: str, keyed: Service, visit: Visit
) -> None:
    page = visit(keyed.url + first, forgive=UNAUTHORIZED)
    enter(page, KEY)
    expect_content(page, first)
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status > 304 else None)
    for path in [path for path in LINKS if path != first] + [first]:
        page.get_by_role("link", name=LINKS[path], exact=True).click()
        expect_content(page, path)
    page.reload()
    expect_content(page, first)
    assert refused == []


@pytest.mark.parametrize("path", LINKS)
def test_a_wrong_key_is_named_as_such_and_asked_for_again(
    path: str, keyed: Service, visit: Visit
) -> None:
    page = visit(keyed.url + path, forgive=UNAUTHORIZED)
    expect(page.locator("#key-reason")).to_contain_text("needs an API key")
    expect(page.get_by_label("API key")).to_be_focused()
    enter(page, "a-key-of-another-service")
    expect(page.locator("#key-reason")).to_contain_text("does not accept this key")
    enter(page, KEY)
    expect_content(page, path)


def test_requests_that_wait_for_a_key_at_once_get_the_same_entry(
    keyed: Service, visit: Visit
) -> None:
    page = visit(f"{keyed.url}/docs", forgive=UNAUTHORIZED)
    held: list[Route] = []
    refused: list[str] = []

    def with_key(route: Route) -> None:
        route.continue_(headers=route.request.headers | {"authorization": f"Bearer {KEY}"})

    def hold_first(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    # As where the key has been replaced since the card was sent.
    page.route(re.compile("/models(/cartpole)?$"), with_key)
    page.route("**/infer", hold_first)
    page.on(
        "response",
        lambda answer: refused.append(answer.url.split("/")[-1]) if answer.status == 401 else None,
    )
    with page.expect_request("**/infer"):
        page.goto(f"{keyed.url}/models/cartpole")
    while not {"act", "learning_curve.png"} <= set(refused):
        page.wait_for_timeout(20)
    expect(page.locator("#key-reason")).to_contain_text("needs an API key")
    enter(page, KEY)
    expect(page.locator(".chosen")).to_have_count(1)
    held[0].continue_()  # without the key, which is entered by now
    expect(page.locator("#heat-section")).to_be_visible()
    expect(page.locator("#learning-curve img")).to_have_attribute("src", re.compile("^blob:"))
    expect(page.locator("#key-form")).to_be_hidden()
    assert "infer" in refused


def test_another_tab_or_visitor_is_asked(keyed: Service, visit: Visit) -> None:
    page = visit(keyed.url, forgive=UNAUTHORIZED)
    enter(page, KEY)
    expect_content(page, "/")
    tab = page.context.new_page()
    tab.goto(keyed.url)
    expect(tab.locator("#key-form")).to_be_visible()


def test_a_page_works_where_the_browser_stores_nothing(keyed: Service, visit: Visit) -> None:
    page = visit(keyed.url, forgive=UNAUTHORIZED, first=NO_STORAGE)
    enter(page, KEY)
    expect_content(page, "/")


def test_the_interface_is_at_its_anchor_and_its_description_can_be_saved(
    keyed: Service, visit: Visit
) -> None:
    page = visit(f"{keyed.url}/docs#act_by_name", forgive=UNAUTHORIZED)
    enter(page, KEY)
    expect_content(page, "/docs")
    expect(page.locator("#act_by_name")).to_have_attribute("open", "")
    expect(page.locator("#act_by_name")).to_be_in_viewport()
    with page.expect_download() as saved:
        page.get_by_role("link", name="openapi.json").click()
    assert '"openapi"' in Path(saved.value.path()).read_text()
