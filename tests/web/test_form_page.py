"""How the form of the card page is laid out and read, and what its sliders offer."""

from typing import Literal

import pytest
from playwright.sync_api import expect

from tests.conftest import Service
from tests.web.conftest import Many, Visit, serious_violations
from tests.web.test_access import open_details
from tests.web.test_form import SHOWN, field, settle, slider
from tests.web.test_layout import DESKTOP, OBSERVE_SHIFTS, PHONE, boxes

pytestmark = pytest.mark.long


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_violation(
    scheme: Literal["light", "dark"], many: Many, visit: Visit
) -> None:
    page = visit(many.url, color_scheme=scheme)
    settle(page)
    open_details(page)
    field(page, "level").fill("99")
    expect(page.locator("#form-status")).to_contain_text("outside")
    assert serious_violations(page) == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_moves_while_it_loads_and_while_it_is_used(
    size: dict[str, int], many: Many, visit: Visit
) -> None:
    page = visit(many.url, viewport=size, first=OBSERVE_SHIFTS)
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    # The answer stays in sight: it moves as the page is scrolled.
    controls = "#card :is(h2, button, input, table, canvas, summary):not(.answer *)"
    before = boxes(page, controls)
    page.get_by_role("button", name="Random numbers").click()
    settle(page)
    slider(page, "level").press("End")
    settle(page)
    page.evaluate("scrollTo(0, 0)")
    assert boxes(page, controls) == before
    assert page.evaluate("window.shifts") == []


def test_a_phone_shows_the_answer_with_every_slider(many: Many, visit: Visit) -> None:
    page = visit(many.url, viewport=PHONE)
    settle(page)
    for i in range(SHOWN):
        page.locator(".number").nth(i).evaluate("(number) => number.scrollIntoView()")
        page.locator(".number").nth(i).evaluate("() => scrollBy(0, -innerHeight / 2)")
        expect(page.locator(".chosen")).to_be_in_viewport()
        expect(page.locator("#value")).to_be_in_viewport()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        # To a thousandth of the range, and never beyond its ends.
        ("rounded(0.123456, -1, 1)", 0.123),
        ("rounded(1000000.05123, 1000000, 1000000.2)", 1000000.0512),
        ("rounded(2.3456e-7, -1e-6, 1e-6)", 2.35e-7),
        ("rounded(5, -1, 1)", 1),
        ("rounded(0, -1, 1)", 0),
        ("between(-1e38, 3e38, 0.5)", 1e38),
        ("between(2, 2, 0.5)", 2),
        # The middle where there are no histograms.
        ("typical({ seen_low: [0, -4], seen_high: [1, 2] })[1]", -1),
        # Six of ten rows are 0, which has a bin of its own; then a half is below 3.
        (
            "typical({ seen_low: [-1], seen_high: [1], histograms: "
            "{ edges: [[0, 1e-9]], shares: [[0.2, 0.6, 0.2]] } })[0]",
            0,
        ),
        (
            "typical({ seen_low: [0], seen_high: [9], histograms: "
            "{ edges: [[1, 3, 5]], shares: [[0.25, 0.25, 0.25, 0.25]] } })[0]",
            3,
        ),
        ("short(-0.123456789)", "-0.12346"),
        ("fixed(-0.004, 2)", "0.00"),
        ("fixed(-0.006, 2)", "-0.01"),
        # As many values as one request may have numbers, else none.
        ("sweepCells(4, 4)", 41),
        ("sweepCells(100, 12)", 20),
        ("sweepCells(500, 12)", 0),
    ],
)
def test_what_a_slider_offers_and_how_numbers_are_written(
    call: str, expected: object, service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/web/numbers.js", forgive="404")  # of a favicon
    result = page.evaluate(
        f"""async () => {{
            const {{ rounded, between, typical, short, fixed }} = await import("/web/numbers.js");
            const {{ sweepCells }} = await import("/web/sweeps.js");
            return {call};
        }}"""
    )
    assert result == expected


def test_an_answer_that_scrolls_can_be_scrolled_by_keyboard(many: Many, visit: Visit) -> None:
    page = visit(many.url, viewport={"width": 360, "height": 300})
    settle(page)
    answer = page.get_by_role("region", name="Answer")
    assert answer.evaluate("(it) => it.scrollHeight > it.clientHeight")
    assert serious_violations(page) == []


def test_each_region_has_a_name_of_its_own(many: Many, visit: Visit) -> None:
    page = visit(many.url)
    settle(page)
    open_details(page)
    expect(page.get_by_role("region", name="What it saw in training")).to_have_count(1)
    expect(page.get_by_role("region", name="Ranges by number")).to_have_count(1)
