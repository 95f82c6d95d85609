"""The live page: carts that the real service decides about, and a person who plays with them."""

import re
import time
from typing import Any, cast

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.conftest import Service
from tests.web.conftest import Visit


def number(page: Page, name: str) -> float:
    """The number that a readout shows, without its unit."""
    return float(page.locator(f"#{name}").inner_text().split()[0])


def wait_for(page: Page, name: str, condition: str) -> None:
    """Wait until a readout's number `n` meets a condition in JavaScript."""
    page.wait_for_function(
        f"n => (n => {condition})(parseFloat(document.getElementById(n).textContent))", arg=name
    )


def decides(rows: int, deterministic: bool) -> Any:
    """Whether a request asks about so many carts, in this way."""

    def matches(request: Request) -> bool:
        if not request.url.endswith("/act"):
            return False
        body = cast(dict[str, Any], request.post_data_json)
        return len(body["observations"]) == rows and body["deterministic"] is deterministic

    return matches


@pytest.fixture
def page(service: Service, visit: Visit) -> Page:
    return visit(service.url)


@pytest.fixture
def still(service: Service, visit: Visit) -> Page:
    """The page where less motion is asked for: paused before the first step."""
    return visit(service.url, reduced_motion="reduce")


def test_it_balances_five_hundred_steps(page: Page) -> None:
    page.get_by_label("Speed").select_option("as fast as it answers")
    expect(page.locator("#best")).to_have_text("500")
    expect(page.locator("#last-episode")).to_have_text(
        "Driven by the policy: 500 steps, then the time limit."
    )


def test_it_shows_what_the_service_thinks(still: Page) -> None:
    with still.expect_response("**/act") as answered:
        still.get_by_role("button", name="Step").click()
    decision = answered.value.json()
    expect(still.locator("#model")).to_have_text("cartpole version 1")
    probabilities, logits = decision["action_probabilities"][0], decision["action_logits"][0]
    expect(still.locator("#probability-left")).to_have_text(f"{100 * probabilities[0]:.1f} %")
    expect(still.locator("#probability-right")).to_have_text(f"{100 * probabilities[1]:.1f} %")
    expect(still.locator("#logit-left")).to_have_text(f"{logits[0]:.3f}")
    expect(still.locator("#logit-right")).to_have_text(f"{logits[1]:.3f}")
    expect(still.locator("#value")).to_have_text(f"{decision['state_values'][0]:.2f}")
    for name in ("round-trip", "p50", "p99"):
        assert number(still, name) > 0
    assert number(still, "p50") <= number(still, "p99")


def test_a_step_is_one_decision(still: Page) -> None:
    expect(still.locator("#steps")).to_have_text("0")
    for steps in ("1", "2"):
        still.get_by_role("button", name="Step").click()
        expect(still.locator("#steps")).to_have_text(steps)
    still.get_by_role("button", name="Start again").click()
    expect(still.locator("#steps")).to_have_text("0")


@pytest.mark.parametrize(
    ("button", "readout", "condition"),
    [
        ("Push cart left", "cart-velocity", "n < -0.2"),
        ("Push cart right", "cart-velocity", "n > 0.2"),
        ("Hit pole left", "pole-angular-velocity", "n < -0.3"),
        ("Hit pole right", "pole-angular-velocity", "n > 0.3"),
    ],
)
def test_a_push_changes_the_state(still: Page, button: str, readout: str, condition: str) -> None:
    still.get_by_role("button", name=button).click()  # it starts within 0.05 of rest
    wait_for(still, readout, condition)
    assert abs(number(still, "cart-position")) <= 0.05


def test_a_click_on_the_picture_strikes_from_that_side(still: Page) -> None:
    box = still.locator("#stage").bounding_box()
    assert box is not None
    # Above the cart and right of the pole: it goes to the left.
    still.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.4 * box["height"])
    wait_for(still, "pole-angular-velocity", "n < -0.3")


def test_an_unusual_state_shows_the_services_warning(page: Page) -> None:
    page.get_by_label("16", exact=True).check()  # one alone may start well, and stay up for long
    page.locator("#spread").select_option("wild, ±5")
    expect(page.locator("#warnings")).to_contain_text("which training never saw")


def test_actions_are_the_most_probable_or_sampled(page: Page) -> None:
    with page.expect_request(decides(1, deterministic=True)):
        pass
    with page.expect_request(decides(1, deterministic=False)):
        page.get_by_label("sampled").check()
    with page.expect_request(decides(1, deterministic=True)):
        page.get_by_label("most probable").check()


@pytest.mark.parametrize("carts", [16, 100, 400])
def test_many_carts_are_decided_by_one_request_a_frame(page: Page, carts: int) -> None:
    with page.expect_request(decides(carts, deterministic=True)) as asked:
        page.get_by_label(f"{carts}", exact=True).check()
    answer = asked.value.response()
    assert answer is not None
    assert len(answer.json()["actions"]) == carts
    wait_for(page, "steps", "n >= 10")
    wait_for(page, "rate", f"n >= {carts}")
    expect(page.locator("#stage")).to_have_attribute("aria-label", re.compile(f"^{carts} carts"))


def test_one_request_is_on_its_way_at_a_time(service: Service, visit: Visit) -> None:
    page = visit(
        service.url,
        first="""
        window.most = window.underway = 0;
        const real = window.fetch;
        window.fetch = async (...asked) => {
            window.underway += 1;
            window.most = Math.max(window.most, window.underway);
            try { return await real(...asked); } finally { window.underway -= 1; }
        };
        """,
    )
    page.get_by_label("Speed").select_option("as fast as it answers")
    wait_for(page, "steps", "n >= 50")
    page.get_by_role("button", name="Start again").click()
    page.get_by_label("16", exact=True).check()
    wait_for(page, "steps", "n >= 10")
    assert page.evaluate("window.most") == 1


def test_a_person_can_drive_to_compare(still: Page) -> None:
    still.get_by_label("you", exact=True).check()
    still.get_by_label("Speed").select_option("as fast as it answers")
    still.get_by_role("button", name="Play").click()
    drive = still.get_by_role("button", name="Drive cart right")
    drive.hover()
    still.mouse.down()  # and on: the pole falls to the left
    expect(still.locator("#last-episode")).to_contain_text("Driven by you")
    wait_for(still, "cart-velocity", "n > 0.3")
    still.mouse.up()
    wait_for(still, "best-by-hand", "n >= 8")
    expect(still.locator("#agreement")).to_contain_text("% of")


def test_late_answers_are_told(page: Page) -> None:
    def late(route: Route) -> None:
        time.sleep(0.06)  # 16 steps a second
        route.continue_()

    page.route("**/act", late)
    expect(page.locator("#pace")).to_contain_text("Late answers hold the carts up")


def test_arrows_drive_right_after_a_click_on_the_driver(still: Page) -> None:
    still.get_by_label("you", exact=True).click()
    still.keyboard.press("ArrowLeft")
    expect(still.get_by_label("you", exact=True)).to_be_checked()


def test_other_speeds_are_kept(still: Page) -> None:
    still.get_by_label("Speed").select_option("a tenth")
    still.get_by_role("button", name="Play").click()
    wait_for(still, "steps", "n >= 2")
    wait_for(still, "rate", "n >= 1 && n < 30")


def test_numbers_that_are_none_are_named(service: Service, visit: Visit) -> None:
    page = visit(service.url)
    answer = {
        "actions": [1],
        "action_logits": [[None, 1.0]],
        "action_probabilities": [[None, None]],
        "state_values": [None],
        "model": {"name": "cartpole", "version": 1},
        "warnings": [],
    }
    page.route("**/act", lambda route: route.fulfill(json=answer))
    for name in ("value", "probability-left", "logit-left"):
        expect(page.locator(f"#{name}")).to_have_text("not a number")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"actions": [NaN]}', "not JSON"),
        ('{"actions": [null], "model": {"name": "m", "version": 1}}', "neither 0 nor 1"),
        ('{"actions": []}', "no action for each of 1 rows"),
    ],
)
def test_an_answer_without_sense_is_shown_and_stops_the_carts(
    service: Service, visit: Visit, body: str, shown: str
) -> None:
    page = visit(service.url)
    page.route("**/act", lambda route: route.fulfill(body=body, content_type="application/json"))
    expect(page.locator("#problem")).to_contain_text(shown)
    page.unroute("**/act")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#problem")).to_be_hidden()


def test_a_refusal_is_shown_in_the_services_words(service: Service, visit: Visit) -> None:
    page = visit(service.url, forgive="422")
    wait_for(page, "steps", "n >= 1")
    # One number too many, in a question that the real service then refuses.
    page.route(
        "**/act",
        lambda route: route.continue_(post_data='{"observations": [[0, 0, 0, 0, 0]]}'),
    )
    expect(page.locator("#problem")).to_contain_text("5 numbers, expected 4")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
