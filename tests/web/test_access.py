"""Keyboard, small screens, dark and light, reduced motion, screen readers."""

import re
from typing import Literal

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.web.conftest import Visit, serious_violations
from tests.web.test_live_page import acts_on, number, wait_for

PAGES = ["/", "/models/cartpole", "/docs"]


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab never reaches {selector}")


def test_everything_works_by_keyboard(service: Service, visit: Visit) -> None:
    page = visit(service.url)
    wait_for(page, "steps", "n >= 1")
    page.keyboard.press("Space")
    expect(page.locator("#pause")).to_have_text("Play")
    tab_to(page, "#reset")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    wait_for(page, "cart-velocity", "n > 0.2")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+ArrowLeft")
    wait_for(page, "pole-angular-velocity", "n < -0.3")
    page.keyboard.press("Shift+Tab")  # to "Step"
    page.keyboard.press("Enter")
    expect(page.locator("#steps")).to_have_text("1")
    tab_to(page, "[name=driver]")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("you", exact=True)).to_be_checked()
    tab_to(page, "[name=count]")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_label("16", exact=True)).to_be_checked()
    tab_to(page, "#spread")
    tab_to(page, "#card-link")  # wraps around to the link to the card
    tab_to(page, "#pause")
    with page.expect_request(acts_on(16, deterministic=True)):
        page.keyboard.press("Space")
    page.keyboard.down("ArrowRight")  # drives instead of pushing
    wait_for(page, "cart-velocity", "n > 0.3")
    page.keyboard.up("ArrowRight")


@pytest.mark.parametrize("key", ["Space", "Enter"])
def test_a_key_that_is_held_pauses_once(key: str, service: Service, visit: Visit) -> None:
    page = visit(service.url, reduced_motion="reduce")
    if key == "Enter":
        page.locator("#pause").focus()
    shown = []
    for _ in range(4):  # each but the first is a repetition
        page.keyboard.down(key)
        shown.append(page.locator("#pause").inner_text())
    page.keyboard.up(key)
    assert shown == ["Pause"] * 4
    expect(page.locator("#pause")).to_have_text("Pause")


@pytest.mark.parametrize("path", PAGES)
def test_it_fits_a_phone(path: str, service: Service, visit: Visit) -> None:
    page = visit(
        service.url + path,
        viewport={"width": 360, "height": 740},
        device_scale_factor=2,
        has_touch=True,
        is_mobile=True,
    )
    settle(page, path)
    open_details(page)
    show_every_notice(page)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("window.innerWidth") == 360


@pytest.mark.parametrize("path", PAGES)
def test_it_is_dark_where_the_system_is(path: str, service: Service, visit: Visit) -> None:
    def brightness(color_scheme: str) -> list[int]:
        page = visit(service.url + path, color_scheme=color_scheme)
        settle(page, path)
        style = page.evaluate(
            "(({ backgroundColor, color }) => [backgroundColor, color])"
            "(getComputedStyle(document.body))"
        )
        return [sum(map(int, colour[4:-1].split(","))) for colour in style]

    for scheme, darker in (("light", 1), ("dark", 0)):
        values = brightness(scheme)
        assert values[darker] < 200 < 500 < values[1 - darker]


def test_reduced_motion_starts_paused(service: Service, visit: Visit) -> None:
    page = visit(service.url, reduced_motion="reduce")
    expect(page.locator("#announcement")).to_contain_text("Play starts it")
    assert number(page, "steps") == 0
    page.get_by_role("button", name="Play").click()
    wait_for(page, "steps", "n >= 1")


def test_reduced_motion_does_not_play_the_recording(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/models/cartpole", reduced_motion="reduce")
    expect(page.locator("#heat-section")).to_be_visible()
    expect(page.locator("#episode img")).to_be_hidden()


def test_a_screen_reader_is_told_where_the_cart_is(service: Service, visit: Visit) -> None:
    page = visit(service.url)
    stage = page.locator("#stage")
    expect(stage).to_have_attribute("aria-label", re.compile("^Cart at .* step [1-9]"))


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_no_serious_violation(
    path: str, scheme: Literal["light", "dark"], service: Service, visit: Visit
) -> None:
    page = visit(service.url + path, color_scheme=scheme)
    settle(page, path)
    open_details(page)
    show_every_notice(page)
    assert serious_violations(page) == []


def settle(page: Page, path: str) -> None:
    """Wait until the page is complete, and pause the carts."""
    if path == "/":
        expect(page.locator("#served-model")).to_have_text("cartpole version 1")
        page.get_by_role("button", name="Pause").click()
    elif path == "/docs":
        expect(page.get_by_role("heading", name="POST /act", exact=True)).to_be_visible()
    else:
        expect(page.locator("#heat-section")).to_be_visible()


def open_details(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")


def show_every_notice(page: Page) -> None:
    """Show all that is hidden while nothing is wrong: warnings, errors, the form for the key."""
    page.evaluate(
        """() => {
            for (const notice of document.querySelectorAll(".notice")) {
                notice.hidden = false;
                if (notice.matches("p")) notice.textContent = "rows[0]: too_large ".repeat(9);
            }
        }"""
    )


HELD = "async () => (await import('/web/controls.js')).held.direction"


@pytest.fixture
def driven(service: Service, visit: Visit) -> Page:
    """The page whose cart the user drives."""
    page = visit(service.url, reduced_motion="reduce")
    page.get_by_label("you", exact=True).check()
    return page


def test_a_button_that_loses_the_focus_stops_driving(driven: Page) -> None:
    driven.get_by_role("button", name="Drive cart right").focus()
    driven.keyboard.down("Space")
    assert driven.evaluate(HELD) == 1
    driven.keyboard.press("Tab")
    driven.keyboard.up("Space")
    assert driven.evaluate(HELD) == 0


def test_only_the_pointer_that_began_to_drive_ends_it(driven: Page) -> None:
    drive = driven.get_by_role("button", name="Drive cart right")
    drive.dispatch_event("pointerdown", {"pointerId": 7})
    driven.locator("body").dispatch_event("pointerup", {"pointerId": 8})
    assert driven.evaluate(HELD) == 1
    driven.locator("body").dispatch_event("pointerup", {"pointerId": 7})
    assert driven.evaluate(HELD) == 0


def test_a_press_in_the_picture_drives_on_though_a_button_loses_the_focus(driven: Page) -> None:
    driven.get_by_role("button", name="Drive cart left").focus()
    box = driven.locator("#stage").bounding_box()
    assert box is not None
    driven.mouse.move(box["x"] + 10, box["y"] + 10)
    driven.mouse.down()
    assert driven.evaluate("document.activeElement === document.body")
    assert driven.evaluate(HELD) == -1
    driven.mouse.up()
    assert driven.evaluate(HELD) == 0
