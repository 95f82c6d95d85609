"""The live page: the real service selects the carts' actions, and a user interferes."""

import re
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.conftest import Service
from tests.web.conftest import Visit

# What a readout shows before there is a number.
NONE_YET = "\N{EN DASH}"


def number(page: Page, name: str) -> float:
    """The number of a readout, without its unit."""
    return float(page.locator(f"#{name}").inner_text().split()[0])


def wait_for(page: Page, name: str, condition: str) -> None:
    """Wait until a readout's number `n` meets a condition in JavaScript."""
    page.wait_for_function(
        f"n => (n => {condition})(parseFloat(document.getElementById(n).textContent))", arg=name
    )


def acts_on(rows: int, deterministic: bool) -> Any:
    """A predicate: whether a request is for this many carts, deterministic or not."""

    def matches(request: Request) -> bool:
        if not request.url.endswith("/act"):
            return False
        body = cast(dict[str, Any], request.post_data_json)
        return len(body["observations"]) == rows and body["deterministic"] is deterministic

    return matches


def answer_every_row(
    action: int = 1, right: float | None = 0.5, value: float | None = 50.0
) -> Callable[[Route], None]:
    """A handler of /act that gives every row the same answer."""

    def answer(route: Route) -> None:
        rows = len(cast(dict[str, Any], route.request.post_data_json)["observations"])
        left = None if right is None else 1 - right
        row = {
            "actions": action,
            "action_logits": [None if right is None else 0.0, 1.0],
            "action_probabilities": [left, right],
            "state_values": value,
        }
        model = {"name": "cartpole", "version": 1}
        route.fulfill(json={name: [given] * rows for name, given in row.items()} | {"model": model})

    return answer


@pytest.fixture
def page(service: Service, visit: Visit) -> Page:
    return visit(service.url)


@pytest.fixture
def still(service: Service, visit: Visit) -> Page:
    """The page with reduced motion: paused before the first step."""
    return visit(service.url, reduced_motion="reduce")


def test_it_balances_five_hundred_steps(page: Page) -> None:
    page.get_by_label("Speed").select_option("unlimited")
    expect(page.locator("#best")).to_have_text("500")
    expect(page.locator("#last-episode")).to_have_text(
        "Driven by the policy: 500 steps, then the time limit."
    )


def test_it_shows_the_policy_outputs(still: Page) -> None:
    with still.expect_event(
        "response", lambda response: acts_on(1, True)(response.request)
    ) as sent:
        still.get_by_role("button", name="Step").click()
    decision = sent.value.json()
    expect(still.locator("#served-model")).to_have_text("cartpole version 1")
    probabilities, logits = decision["action_probabilities"][0], decision["action_logits"][0]
    expect(still.locator("#probability-left")).to_have_text(f"{100 * probabilities[0]:.1f} %")
    expect(still.locator("#probability-right")).to_have_text(f"{100 * probabilities[1]:.1f} %")
    expect(still.locator("#logit-left")).to_have_text(f"{logits[0]:.3f}")
    expect(still.locator("#logit-right")).to_have_text(f"{logits[1]:.3f}")
    expect(still.locator("#value")).to_have_text(f"{decision['state_values'][0]:.2f}")
    for name in ("round-trip", "p50", "p99"):
        assert number(still, name) > 0
    assert number(still, "p50") <= number(still, "p99")


def test_a_step_is_one_request(still: Page) -> None:
    expect(still.locator("#steps")).to_have_text("0")
    for steps in ("1", "2"):
        still.get_by_role("button", name="Step").click()
        expect(still.locator("#steps")).to_have_text(steps)
    still.get_by_role("button", name="Reset").click()
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


@pytest.mark.parametrize("link", ["", "?model=cartpole"])
def test_a_push_before_the_service_has_named_its_model_is_not_lost(
    still: Page, service: Service, link: str
) -> None:
    asked: list[Route] = []
    still.route("**/models", lambda route: asked.append(route))
    with still.expect_request("**/models"):
        still.goto(f"{service.url}/{link}")
    still.get_by_role("button", name="Push cart right").click()
    wait_for(still, "cart-velocity", "n > 0.2")
    asked[0].continue_()
    expect(still.locator("#served-model")).to_have_text("cartpole version 1")
    assert number(still, "cart-velocity") > 0.2


def test_a_click_on_the_picture_hits_from_that_side(still: Page) -> None:
    box = still.locator("#stage").bounding_box()
    assert box is not None
    # Above the cart and right of the pole: it goes to the left.
    still.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 0.4 * box["height"])
    wait_for(still, "pole-angular-velocity", "n < -0.3")


def test_an_unusual_state_shows_the_services_warning(page: Page) -> None:
    page.get_by_label("16", exact=True).check()  # a single one may start within the ranges
    page.locator("#spread").select_option("±5 (extreme)")
    expect(page.locator("#warnings")).to_contain_text("which training never saw")


def test_actions_are_the_most_probable_or_sampled(page: Page) -> None:
    with page.expect_request(acts_on(1, deterministic=True)):
        pass
    with page.expect_request(acts_on(1, deterministic=False)):
        page.get_by_label("sampled").check()
    with page.expect_request(acts_on(1, deterministic=True)):
        page.get_by_label("most probable").check()


@pytest.mark.parametrize("carts", [16, 100, 400])
def test_many_carts_get_their_actions_from_one_request(page: Page, carts: int) -> None:
    with page.expect_request(acts_on(carts, deterministic=True)) as sent:
        page.get_by_label(f"{carts}", exact=True).check()
    answer = sent.value.response()
    assert answer is not None
    assert len(answer.json()["actions"]) == carts
    wait_for(page, "steps", "n >= 10")
    wait_for(page, "rate", f"n >= {carts}")
    expect(page.locator("#stage")).to_have_attribute("aria-label", re.compile(f"^{carts} carts"))


def test_one_request_is_in_flight_at_a_time(service: Service, visit: Visit) -> None:
    page = visit(
        service.url,
        first="""
        window.most = window.inFlight = 0;
        const real = window.fetch;
        window.fetch = async (...request) => {
            window.inFlight += 1;
            window.most = Math.max(window.most, window.inFlight);
            try { return await real(...request); } finally { window.inFlight -= 1; }
        };
        """,
    )
    page.get_by_label("Speed").select_option("unlimited")
    wait_for(page, "steps", "n >= 50")
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("16", exact=True).check()
    wait_for(page, "steps", "n >= 10")
    assert page.evaluate("window.most") == 1


def test_a_user_can_drive_to_compare(still: Page) -> None:
    still.get_by_label("you", exact=True).check()
    still.get_by_label("Speed").select_option("unlimited")
    still.get_by_role("button", name="Play").click()
    # Not with the mouse: what stands above the button may grow between moving there and pressing.
    drive = still.get_by_role("button", name="Drive cart right")
    drive.dispatch_event("pointerdown")  # held: the pole falls to the left
    expect(still.locator("#last-episode")).to_contain_text("Driven by you")
    wait_for(still, "cart-velocity", "n > 0.3")
    drive.dispatch_event("pointerup")
    wait_for(still, "best-by-user", "n >= 8")
    expect(still.locator("#agreement")).to_contain_text("% of")


def test_an_episode_that_both_drove_is_the_longest_of_neither(still: Page) -> None:
    still.get_by_label("Speed").select_option("0.1")  # its end is shown for six seconds
    still.get_by_role("button", name="Step").click()
    expect(still.locator("#steps")).to_have_text("1")
    still.get_by_label("you", exact=True).check()
    still.get_by_role("button", name="Drive cart right").dispatch_event("pointerdown")
    still.get_by_role("button", name="Play").press("Enter")
    expect(still.locator("#last-episode")).to_contain_text("Driven by you and by the policy")
    still.keyboard.press("Space")  # on the same button
    expect(still.locator("#agreement")).to_contain_text("% of")
    for longest in ("best", "best-by-user", "mean"):
        expect(still.locator(f"#{longest}")).to_have_text(NONE_YET)


def test_an_episode_without_a_key_press_is_nobodys(still: Page) -> None:
    still.get_by_label("you", exact=True).check()
    still.get_by_label("Speed").select_option("unlimited")
    still.get_by_role("button", name="Play").click()
    expect(still.locator("#last-episode")).to_contain_text("You did not steer")
    still.get_by_role("button", name="Pause").click()
    for number_of in ("best", "best-by-user", "mean", "agreement"):
        expect(still.locator(f"#{number_of}")).to_have_text(NONE_YET)


def test_slow_responses_are_shown(page: Page) -> None:
    def late(route: Route) -> None:
        time.sleep(0.06)  # 16 steps per second
        route.continue_()

    page.route("**/act", late)
    expect(page.locator("#pace")).to_contain_text("Slow responses delay the carts")


def test_arrows_drive_right_after_a_click_on_the_driver(still: Page) -> None:
    still.get_by_label("you", exact=True).click()
    still.keyboard.press("ArrowLeft")
    expect(still.get_by_label("you", exact=True)).to_be_checked()


def test_other_speeds_are_kept(still: Page) -> None:
    still.get_by_label("Speed").select_option("0.1")
    still.get_by_role("button", name="Play").click()
    wait_for(still, "steps", "n >= 2")
    wait_for(still, "rate", "n >= 1 && n < 30")


def test_a_missing_number_is_shown_as_not_a_number(service: Service, visit: Visit) -> None:
    page = visit(service.url)
    page.route("**/act", answer_every_row(right=None, value=None))
    for name in ("value", "probability-left", "logit-left"):
        expect(page.locator(f"#{name}")).to_have_text("not a number")


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ('{"actions": [NaN]}', "not JSON"),
        ('{"actions": [null], "model": {"name": "m", "version": 1}}', "neither 0 nor 1"),
        ('{"actions": []}', "not have one action per row (1)"),
    ],
)
def test_an_invalid_response_is_shown_and_stops_the_carts(
    service: Service, visit: Visit, body: str, shown: str
) -> None:
    page = visit(service.url)
    page.route("**/act", lambda route: route.fulfill(body=body, content_type="application/json"))
    expect(page.locator("#problem")).to_contain_text(shown)
    page.unroute("**/act")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#problem")).to_be_hidden()


def test_the_detail_of_an_error_is_shown(service: Service, visit: Visit) -> None:
    page = visit(service.url, forgive="422")
    wait_for(page, "steps", "n >= 1")
    # One number too many, which the real service rejects.
    page.route(
        "**/act",
        lambda route: route.continue_(post_data='{"observations": [[0, 0, 0, 0, 0]]}'),
    )
    expect(page.locator("#problem")).to_contain_text("5 numbers, expected 4")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
