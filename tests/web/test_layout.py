"""One header for all pages, and a layout in which nothing moves by itself."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.web.conftest import Visit
from tests.web.test_access import PAGES, settle, show_every_notice
from tests.web.test_live_page import wait_for

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1440, "height": 900}
PAGE_BYTES = 200_000

# Of a page as it loads: how far its parts moved (the Layout Instability API's score).
OBSERVE_SHIFTS = """
    window.shifts = [];
    new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((shift) => [
        shift.value, shift.sources.map(({ node }) => node?.id || node?.nodeName).join(" "),
    ]))).observe({ type: "layout-shift", buffered: true });
"""


def boxes(page: Page, selector: str) -> list[Any]:
    """The position and the size of each of these elements on the page."""
    script = """elements => elements.filter((it) => it.checkVisibility()).map((element) => {
        const { left, top, width, height } = element.getBoundingClientRect();
        return [left + scrollX, top + scrollY, width, height].map(Math.round);
    })"""
    return cast(list[Any], page.eval_on_selector_all(selector, script))


@pytest.mark.parametrize(
    "size",
    [pytest.param(PHONE, id="phone"), pytest.param(DESKTOP, id="desktop", marks=pytest.mark.long)],
)
def test_no_control_moves_whatever_the_page_has_to_say(
    size: dict[str, int], service: Service, visit: Visit
) -> None:
    page = visit(service.url, viewport=size, reduced_motion="reduce", forgive="503|422")
    controls = ":is(button, input, select, canvas, nav a, h2):not(#key-form *)"
    before = boxes(page, controls)
    assert len(before) > 20

    def answer(route: Any) -> None:
        route.fulfill(status=503, json={"detail": "no version of cartpole is loaded yet"})

    def wrong(route: Any) -> None:
        route.continue_(post_data='{"observations": [[0, 0, 0, 0, 0]]}')

    def happens(act: Callable[[], object], shown: str, text: str) -> None:
        act()
        expect(page.locator(shown)).to_contain_text(text)
        assert boxes(page, controls) == before, shown

    play, speed = page.locator("#pause"), page.get_by_label("Speed")
    happens(play.click, "#served-model", "cartpole version 1")
    happens(lambda: speed.select_option("unlimited"), "#last-episode", "500 steps")
    page.get_by_label("16", exact=True).check()
    happens(lambda: page.locator("#spread").select_option("5"), "#warnings", "never saw")
    happens(page.get_by_label("you", exact=True).check, "#cart-left", "Drive")
    page.route("**/act", answer)
    happens(lambda: None, "#unavailable", "Retrying")
    page.unroute("**/act")
    expect(page.locator("#unavailable")).to_be_hidden()
    page.route("**/act", wrong)
    happens(lambda: None, "#problem", "expected 4")
    show_every_notice(page)
    assert boxes(page, controls) == before


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("path", PAGES)
def test_nothing_moves_while_a_page_loads(
    path: str, size: dict[str, int], service: Service, visit: Visit
) -> None:
    page = visit(service.url + path, viewport=size, first=OBSERVE_SHIFTS)
    settle(page, path)
    assert page.evaluate("window.shifts") == []


def test_a_phone_shows_picture_outputs_and_buttons_together(service: Service, visit: Visit) -> None:
    page = visit(service.url, viewport=PHONE, has_touch=True, is_mobile=True)
    wait_for(page, "steps", "n >= 1")
    for seen in ("#stage", "#bar-right", "#value", "#value-history", "#pause", "#cart-left"):
        ((left, top, width, height),) = boxes(page, seen)
        assert left >= 0
        assert left + width <= PHONE["width"]
        assert top + height <= PHONE["height"], seen


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_every_page_has_the_same_header_in_the_same_place(
    size: dict[str, int], service: Service, visit: Visit
) -> None:
    page = visit(service.url, viewport=size)
    steps = [("Policy card", "models/cartpole"), ("HTTP API", "docs"), ("Live", "")]
    places = []
    for link, path in steps:
        page.get_by_role("navigation", name="Pages").get_by_role("link", name=link).click()
        expect(page).to_have_url(f"{service.url}/{path}")
        expect(page.locator("nav [aria-current=page]")).to_have_text(link)
        expect(page.locator("#served-model")).to_have_text("cartpole version 1")
        page.wait_for_load_state()  # with all its styles
        places.append(boxes(page, "header, header nav a, .brand, #served-model"))
    assert len(places[0]) == 6
    assert places[0] == places[1] == places[2]


@pytest.mark.parametrize("width", [1024, 1311, 1312])
def test_no_table_of_a_card_is_wider_than_its_section(
    width: int, service: Service, visit: Visit
) -> None:
    size = {"width": width, "height": 900}
    page = visit(f"{service.url}/models/cartpole", viewport=size)
    settle(page, "/models/cartpole")
    assert page.locator("section:has(table)").count() > 2
    for section in page.locator("section:has(table)").all():
        right = section.evaluate("it => it.getBoundingClientRect().right")
        for table in section.locator("table").all():
            assert table.evaluate("it => it.getBoundingClientRect().right") <= right + 1


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_small(path: str, service: Service, visit: Visit) -> None:
    page = visit(service.url + path)
    settle(page, path)
    transferred = page.evaluate(
        """() => performance.getEntries()
            .filter(({ entryType, name }) => entryType === "navigation" || name.includes("/web/"))
            .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0)"""
    )
    assert 3000 < transferred < PAGE_BYTES
