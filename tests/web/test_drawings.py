"""What the live page draws, by its pixels."""

import math
from typing import Any, cast

import pytest
from playwright.sync_api import Page, Route, expect

from tests.conftest import Service, wait_until
from tests.web.conftest import Visit
from tests.web.test_live_page import answer_every_row, number, wait_for


@pytest.fixture
def still(service: Service, visit: Visit) -> Page:
    """The page with reduced motion: paused before the first step."""
    return visit(service.url, reduced_motion="reduce")


@pytest.mark.parametrize(
    ("low", "high", "share"), [(92.0, 92.4, 0.0), (12.0, 92.0, 0.8), (-20.0, 40.0, 0.9)]
)
def test_the_chart_of_values_shows_changes_as_large_as_they_are(
    service: Service, visit: Visit, low: float, high: float, share: float
) -> None:
    page = visit(service.url, reduced_motion="reduce")
    answered = 0

    def answer(route: Route) -> None:
        nonlocal answered
        answered += 1
        answer_every_row(value=high if answered % 2 else low)(route)

    page.get_by_label("Speed").select_option("unlimited")
    page.route("**/act", answer)
    page.get_by_role("button", name="Play").click()
    while answered < 40:  # more than its last tenth has
        page.wait_for_timeout(50)
    # The share of the chart's height that the line takes, in its newest tenth.
    drawn = page.evaluate(
        """() => {
            const canvas = document.getElementById("value-history");
            const { width, height } = canvas;
            const context = new OffscreenCanvas(width, height)
                .getContext("2d", { willReadFrequently: true });
            context.drawImage(canvas, 0, 0);
            const x = Math.floor(0.9 * width);
            const { data } = context.getImageData(x, 0, width - x, height);
            const rows = [];
            for (let i = 3; i < data.length; i += 4) {
                if (data[i] > 127) rows.push(Math.floor(i / 4 / (width - x)));
            }
            return (Math.max(...rows) - Math.min(...rows)) / height;
        }"""
    )
    assert drawn == pytest.approx(share, abs=0.08)


# Pixels of the phase plane in each colour of the style sheet, by their mean height (0 to 1).
PLANE = """async () => {
    const { pageColors } = await import("/web/stage.js");
    const canvas = document.getElementById("plane");
    const { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height)
        .getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, width, height);
    const near = (i, color) => data[i + 3] > 200 && [1, 3, 5].every((at, k) =>
        Math.abs(data[i + k] - parseInt(color.trim().slice(at, at + 2), 16)) < 12);
    return Object.fromEntries(["ink", "left", "right"].map((name) => {
        const rows = [];
        for (let i = 0; i < data.length; i += 4) {
            if (near(i, pageColors()[name])) rows.push(1 - Math.floor(i / 4 / width) / height);
        }
        return [name, rows.reduce((sum, row) => sum + row, 0) / rows.length || null];
    }));
}"""


def test_the_phase_plane_has_the_state_as_a_point(still: Page) -> None:
    wait_for(still, "pole-angular-velocity", "n > -0.1")
    for button, low, high in (("Hit pole right", 0.55, 0.95), ("Hit pole left", 0.4, 0.6)):
        still.get_by_role("button", name=button).click()
        still.evaluate("new Promise(requestAnimationFrame)")
        assert low < still.evaluate(PLANE)["ink"] < high


@pytest.mark.parametrize(("action", "taken", "other"), [(0, "left", "right"), (1, "right", "left")])
def test_the_phase_plane_shows_which_action_was_taken_where(
    still: Page, action: int, taken: str, other: str
) -> None:
    still.route("**/act", answer_every_row(action))
    for steps in ("1", "2", "3", "4"):
        still.get_by_role("button", name="Step").click()
        expect(still.locator("#steps")).to_have_text(steps)
    still.evaluate("new Promise(requestAnimationFrame)")
    drawn = still.evaluate(PLANE)
    assert drawn[taken] is not None
    assert drawn[other] is None


# The colours of a canvas at these places, as shares of its width and height.
COLORS_AT = """([id, places]) => {
    const canvas = document.getElementById(id);
    const { width, height } = canvas;
    const copy = new OffscreenCanvas(width, height)
        .getContext("2d", { willReadFrequently: true });
    copy.drawImage(canvas, 0, 0);
    return places.map(([x, y]) => [
        ...copy.getImageData(Math.floor(x * width), Math.floor(y * height), 1, 1).data,
    ]);
}"""


def test_the_phase_plane_shows_the_policy_where_the_cart_is(still: Page) -> None:
    asked: list[list[float]] = []

    def answer(route: Route) -> None:
        (given,) = cast(dict[str, Any], route.request.post_data_json)["inputs"]
        count, columns = given["shape"]
        asked[:] = [given["data"][columns * i :][:columns] for i in range(count)]
        right = [float(angle > 0 or velocity > 1) for _, _, angle, velocity in asked]
        probabilities = [one for share in right for one in (1 - share, share)]
        output = {"name": "action_probabilities", "shape": [count, 2], "data": probabilities}
        model = {"model_name": "cartpole", "model_version": "1"}
        route.fulfill(json={**model, "parameters": {"seed": 1}, "outputs": [output]})

    still.route("**/v2/models/cartpole/versions/1/infer", answer)
    still.get_by_role("button", name="Push cart right").click()
    places = [(0.1, 0.4), (0.9, 0.4), (0.1, 0.1), (0.1, 0.9)]

    def is_drawn() -> bool:
        opacity = still.evaluate(COLORS_AT, ["plane", places])[0][3]
        return opacity > 0 and bool(asked) and asked[0][1] > 0.2  # of the cart that was pushed

    wait_until(is_drawn)
    left, right, fast_right, slow_left = still.evaluate(COLORS_AT, ["plane", places])
    for red, _, blue, opaque in (left, slow_left):
        assert (opaque, blue > red) == (255, True)
    for red, _, blue, opaque in (right, fast_right):
        assert (opaque, red > blue) == (255, True)
    # Of a cart where this one is, over the whole plane.
    position, velocity = (number(still, f"cart-{name}") for name in ("position", "velocity"))
    assert velocity > 0.2
    for row in asked:
        assert row[:2] == pytest.approx([position, velocity], abs=1e-4)
    angles, velocities = ({row[column] for row in asked} for column in (2, 3))
    assert len(asked) == len(angles) * len(velocities)
    assert max(angles) == -min(angles) == pytest.approx(math.radians(12), rel=0.1)
    assert max(velocities) == -min(velocities) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(("right", "upper", "lower"), [(0.9, True, False), (0.1, False, True)])
def test_how_sure_the_policy_was_and_when_it_was_pushed_is_drawn_over_time(
    still: Page, right: float, upper: bool, lower: bool
) -> None:
    still.route("**/act", answer_every_row(right=right))
    for steps in range(1, 7):
        if steps == 2:
            still.get_by_role("button", name="Hit pole right").click()
        still.get_by_role("button", name="Step").click()
        expect(still.locator("#steps")).to_have_text(str(steps))
    newest = 1 - 0.5 / 249  # between the last two of 250 steps, of which 6 are there
    pushed = 1 - 4 / 249

    def opacities(chart: str, *places: tuple[float, float]) -> list[int]:
        return [opacity for *_, opacity in still.evaluate(COLORS_AT, [chart, places])]

    charts = ("right-history", "value-history")
    wait_until(lambda: all(opacities(chart, (pushed, 0.02))[0] > 200 for chart in charts))
    for chart in charts:
        assert opacities(chart, (pushed - 0.04, 0.02)) == [0]
    drawn = opacities("right-history", (newest, 0.4), (newest, 0.6))
    assert [opacity > 0 for opacity in drawn] == [upper, lower]
