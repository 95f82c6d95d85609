"""Links to episodes, what a push does, and dragging."""

import math
import re

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import Service
from tests.web.conftest import Visit
from tests.web.test_live_page import answer_every_row, number, wait_for

STATE = ("cart-position", "cart-velocity", "pole-angle", "pole-angular-velocity")


def stepped(page: Page, steps: int) -> list[float]:
    """The observation after so many steps, one by one."""
    for done in range(1, steps + 1):
        page.get_by_role("button", name="Step").click()
        expect(page.locator("#steps")).to_have_text(str(done))
    return [number(page, name) for name in STATE]


@pytest.fixture
def still(service: Service, visit: Visit) -> Page:
    """The page with reduced motion: paused before the first step."""
    return visit(service.url, reduced_motion="reduce")


def test_a_link_replays_an_episode_with_sampled_actions(
    still: Page, service: Service, visit: Visit
) -> None:
    still.get_by_label("sampled").check()
    still.get_by_label("Initial state").select_option("0.2")
    states = stepped(still, 25)
    assert any(abs(number) > 0.05 for number in states)
    address = still.get_by_role("link", name="Link to this episode").get_attribute("href")
    assert address is not None
    replay = visit(f"{service.url}/{address}", reduced_motion="reduce")
    expect(replay.get_by_label("sampled")).to_be_checked()
    expect(replay.locator("#lead")).to_contain_text("of cartpole version 1.")
    assert stepped(replay, 25) == states
    replay.get_by_role("button", name="Reset").click()
    expect(replay.locator("#steps")).to_have_text("0")
    assert stepped(replay, 25) == states
    # Another seed is another episode.
    other = visit(
        f"{service.url}/{re.sub('seed=[0-9]+', 'seed=1', address)}", reduced_motion="reduce"
    )
    assert stepped(other, 1) != states[:1]
    other.get_by_role("link", name="Leave the replay").click()
    expect(other).to_have_url(f"{service.url}/")


@pytest.mark.parametrize(
    ("spread", "shown"), [("5", "±5 (extreme)"), ("0.20", "±0.2 (wider)"), ("0.1", "±0.1")]
)
def test_a_replay_shows_its_initial_state(
    spread: str, shown: str, service: Service, visit: Visit
) -> None:
    query = f"model=cartpole&version=1&seed=3&spread={spread}&actions=sampled"
    page = visit(f"{service.url}/?{query}", reduced_motion="reduce")
    expect(page.locator("#lead")).to_contain_text("This replays the episode with seed 3")
    initial = page.get_by_label("Initial state")
    expect(initial.locator("option:checked")).to_have_text(shown)
    expect(initial).to_be_disabled()


def test_a_link_to_a_version_that_is_not_loaded_says_so(service: Service, visit: Visit) -> None:
    query = "model=cartpole&version=7&seed=3&spread=0.05&actions=greedy"
    page = visit(f"{service.url}/?{query}", reduced_motion="reduce")
    expect(page.locator("#lead")).to_contain_text("cartpole version 7, which is not loaded")
    page.get_by_role("link", name="version 1 (served)").click()
    expect(page.locator("#lead")).to_contain_text("seed 3 of cartpole version 1.")
    wait_for(page, "value", "n > 0")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("seed=1", "the link has no version"),
        ("seed=-1&version=1", "seed=-1 is not a whole number up to 4294967295"),
        ("seed=4294967296&version=1", "seed=4294967296 is not"),
        ("seed=1&version=1&spread=9", "spread=9 is not from 0 to 5"),
        ("seed=1&version=1&actions=best", "actions=best is neither"),
        ("model=unknown", "no model is called 'unknown'"),
    ],
)
def test_a_wrong_link_is_named(query: str, problem: str, service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/?{query}", forgive="404")
    expect(page.locator("#problem")).to_contain_text(problem)


def test_many_carts_have_no_link(still: Page) -> None:
    link = still.locator("#episode-link")
    expect(link).to_have_attribute("href", re.compile("seed=[0-9]+"))
    still.get_by_label("16", exact=True).check()
    expect(link).not_to_have_attribute("href", re.compile(""))


def test_a_push_is_followed_until_the_pole_is_upright_again(still: Page) -> None:
    said = still.locator("#last-push")
    expect(said).to_have_text("")
    stepped(still, 1)
    still.get_by_role("button", name="Hit pole right").click()
    expect(said).to_have_text("Pushed.")
    still.get_by_label("Speed").select_option("unlimited")
    still.get_by_role("button", name="Play").click()
    expect(said).to_have_text(
        re.compile(r"leaned by up to [1-9][.0-9]*°, and was within 1° again after [0-9.]+ s\.")
    )
    still.get_by_role("button", name="Reset").click()
    expect(said).to_have_text("")


def test_a_push_that_ends_the_episode_is_named_as_such(still: Page) -> None:
    still.route("**/act", answer_every_row(1))  # always to the right: the pole falls to the left
    still.get_by_role("button", name="Hit pole left").click()
    still.get_by_role("button", name="Play").click()
    expect(still.locator("#last-push")).to_have_text(
        re.compile(r"leaned by up to 1[2-9][.0-9]*°; the episode ended after 0\.[0-9]+ s\.")
    )


def test_the_pole_and_the_cart_can_be_dragged_and_the_policy_answers(still: Page) -> None:
    wait_for(still, "value", "n > 0")
    box = still.locator("#stage").bounding_box()
    assert box is not None
    scale = min(box["width"] / 5.4, box["height"] / 1.75)  # pixels of a metre
    middle = box["x"] + box["width"] / 2
    ground = box["y"] + (box["height"] + scale * 1.75) / 2 - 0.25 * scale
    joint = ground - 0.25 * scale

    still.mouse.move(middle + 0.02 * scale, joint - 0.8 * scale)
    still.mouse.down()
    still.mouse.move(middle + 0.16 * scale, joint - scale, steps=5)
    wait_for(still, "probability-right", "n > 60")
    still.mouse.move(middle - 0.16 * scale, joint - scale, steps=5)
    wait_for(still, "probability-right", "n < 40")
    still.mouse.up()
    wait_for(still, "pole-angle", "n < -0.1 && n > -0.2")
    assert number(still, "pole-angular-velocity") == 0

    still.mouse.move(middle, ground - 0.1 * scale)
    still.mouse.down()
    still.mouse.move(middle - 1.5 * scale, ground - 0.1 * scale, steps=5)
    still.mouse.up()
    wait_for(still, "cart-position", "Math.abs(n + 1.5) < 0.01")
    assert number(still, "steps") == 0

    # Beyond the limits it stays where an episode does not end.
    still.mouse.move(middle, joint - 0.5 * scale)
    still.mouse.down()
    still.mouse.move(middle + 2 * scale, joint - 0.5 * scale, steps=5)
    still.mouse.up()
    wait_for(still, "pole-angle", f"n > 0.19 && n < {math.radians(12)}")


def test_a_press_that_is_released_outside_the_picture_drags_nothing(still: Page) -> None:
    wait_for(still, "value", "n > 0")
    box = still.locator("#stage").bounding_box()
    assert box is not None
    height = box["y"] + 0.5 * box["height"]
    still.mouse.move(box["x"] + 10, height)
    still.mouse.down()
    still.mouse.move(box["x"] - 10, height)  # in one movement, so that no drag begins
    still.mouse.up()
    state = [number(still, name) for name in STATE]
    still.mouse.move(box["x"] + 0.8 * box["width"], height, steps=5)
    still.wait_for_timeout(300)  # the numbers are written every 100 ms
    assert [number(still, name) for name in STATE] == state


def drag_cart(page: Page) -> None:
    """Take the cart and move it to the right, once it has been shown."""
    wait_for(page, "steps", "n >= 1")
    box = page.locator("#stage").bounding_box()
    assert box is not None
    ground = box["y"] + 0.82 * box["height"]
    page.mouse.move(box["x"] + 0.5 * box["width"], ground)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], ground, steps=5)


def test_carts_do_not_move_while_one_is_dragged_and_such_an_episode_counts_for_nobody(
    service: Service, visit: Visit
) -> None:
    page = visit(service.url)
    drag_cart(page)
    steps = number(page, "steps")
    wait_for(page, "cart-position", "n > 1")
    page.wait_for_timeout(300)
    assert number(page, "steps") <= steps + 1
    page.mouse.up()
    wait_for(page, "steps", f"n > {steps + 5}")
    page.get_by_label("Speed").select_option("unlimited")
    expect(page.locator("#last-episode")).to_contain_text("Dragged by you")
    for longest in ("best", "best-by-user", "mean"):
        expect(page.locator(f"#{longest}")).to_have_text("–")  # noqa: RUF001  # an en dash


def test_a_second_finger_does_not_hold_the_carts_for_good(service: Service, visit: Visit) -> None:
    page = visit(service.url, has_touch=True)
    wait_for(page, "steps", "n >= 1")
    box = page.locator("#stage").bounding_box()
    assert box is not None
    x, y = box["x"] + 0.5 * box["width"], box["y"] + 0.82 * box["height"]
    devices = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": left, "y": top, "id": i} for i, (left, top) in enumerate(places)]
        devices.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (x, y))
    for moved in range(5, 60, 5):
        touch("touchMove", (x + moved, y))
    wait_for(page, "cart-position", "n > 0.2")
    touch("touchStart", (x + 55, y), (x + 100, y - 20))
    touch("touchEnd")
    steps = number(page, "steps")
    wait_for(page, "steps", f"n > {steps + 5}")


def test_a_reset_ends_a_drag(service: Service, visit: Visit) -> None:
    page = visit(service.url)
    drag_cart(page)
    wait_for(page, "cart-position", "n > 0.5")
    page.locator("#reset").dispatch_event("click")
    wait_for(page, "steps", "n >= 5")
