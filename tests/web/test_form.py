"""The form of the card page: a slider for each number of any policy, answered at once."""

import json
import re
import shlex
import subprocess

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from serving.client import PolicyClient
from tests.conftest import Service
from tests.environments.many import CONSTANT, LEVEL, SIZE
from tests.tools import require_program
from tests.web.conftest import MANY_NAMES as NAMES
from tests.web.conftest import Many, Visit
from tests.web.test_layout import boxes

SHOWN = 12


@pytest.fixture
def page(many: Many, visit: Visit) -> Page:
    page = visit(many.url)
    settle(page)
    return page


def settle(page: Page) -> None:
    """Wait until the form is answered, and its strips are drawn."""
    expect(page.locator(".chosen")).to_have_count(1)
    expect(page.locator("canvas.stale")).to_have_count(0)


def slider(page: Page, name: str) -> Locator:
    return page.get_by_role("slider", name=f"{name}, slider", exact=True)


def field(page: Page, name: str) -> Locator:
    return page.get_by_role("spinbutton", name=name, exact=True)


def asked(page: Page) -> list[float]:
    """The observation that the page shows a request of."""
    command = shlex.split(page.locator("#curl").text_content() or "")
    row: list[float] = json.loads(command[command.index("-d") + 1])["observations"][0]
    return row


def shown(page: Page) -> list[list[str]]:
    """The cells of each action: its name, probability and logit."""
    rows = page.locator("#actions tr").all()
    texts = [row.locator("th, td").all_inner_texts() for row in rows]
    return [[name.replace("✓", "").replace("taken:", "").strip(), *rest] for name, *rest in texts]


def test_each_number_has_a_slider_over_its_seen_range_which_starts_at_its_median(
    page: Page, many: Many
) -> None:
    observations = many.card["observations"]
    row = asked(page)
    for i, name in enumerate(NAMES):
        low, high = observations["seen_low"][i], observations["seen_high"][i]
        rows = page.locator(".number").nth(i)
        assert rows.locator("label").text_content() == name.replace("_", " ")
        # The median is the fifth of nine deciles; what never changes has none.
        expected = CONSTANT if low == high else observations["histograms"]["edges"][i][4]
        assert row[i] == pytest.approx(expected, abs=(high - low) / 1000)
        if low != high:
            ends = rows.locator(".ends span").all_text_contents()
            assert [float(end) for end in ends] == pytest.approx([low, high], rel=1e-4)
    page.get_by_text(f"{SIZE - SHOWN} more of the {SIZE} numbers").click()
    level = slider(page, "level")
    for key, limit in (("End", "seen_high"), ("Home", "seen_low")):
        level.press(key)
        assert asked(page)[LEVEL] == observations[limit][LEVEL]
        last = slider(page, f"other {SIZE - 1}")
        last.press(key)
        assert asked(page)[-1] == observations[limit][-1]


def test_the_answer_is_the_services_for_the_numbers_of_the_sliders(page: Page, many: Many) -> None:
    for key, name in (("End", "high"), ("Home", "low")):
        slider(page, "level").press(key)
        expect(page.locator(".chosen")).to_contain_text(name)
        settle(page)
        with PolicyClient(many.service.url) as client:
            answer = client.act([asked(page)], model="many", deterministic=True)
        for action, (label, _, percent, logit) in enumerate(shown(page)):
            assert label == ["low", "medium", "high"][action]
            assert percent == f"{100 * answer.action_probabilities[0][action]:.1f} %"
            assert logit == f"{answer.action_logits[0][action]:.2f}"
        expect(page.locator("#value")).to_have_text(f"{answer.state_values[0]:.2f}")
        widths = [
            float(bar.evaluate("(bar) => bar.style.getPropertyValue('--share')"))
            for bar in page.locator(".bar").all()
        ]
        assert widths == pytest.approx(answer.action_probabilities[0])
        expect(page.locator("#announcement")).to_contain_text(f"Most probable: {name}.")


# The colour that most of a strip's pixels have, at its left end and at its right end.
ENDS = """(strip) => {
    const { width, height } = strip;
    const { data } = strip.getContext("2d").getImageData(0, 0, width, height);
    return [2, width - 3].map((x) => {
        const counts = {};
        for (let y = 0; y < height; y += 1) {
            const color = data.slice(4 * (y * width + x), 4 * (y * width + x) + 3).join();
            counts[color] = (counts[color] ?? 0) + 1;
        }
        const [color, count] = Object.entries(counts).sort(([, a], [, b]) => b - a)[0];
        return [color, count / height];
    });
}"""
COLOR = """(bar) => {
    const context = new OffscreenCanvas(1, 1).getContext("2d");
    context.fillStyle = bar.style.getPropertyValue("--color");
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data.slice(0, 3).join();
}"""


def test_a_strip_shows_what_the_policy_would_do_along_its_slider(page: Page, many: Many) -> None:
    low, _, high = (bar.evaluate(COLOR) for bar in page.locator(".bar").all())
    row, observations = asked(page), many.card["observations"]
    ends = [
        [*row[:LEVEL], observations[limit][LEVEL], *row[LEVEL + 1 :]]
        for limit in ("seen_low", "seen_high")
    ]
    with PolicyClient(many.service.url) as client:
        first, last = client.act(ends, model="many").action_probabilities
    strip = page.locator(".number").nth(LEVEL).locator("canvas")
    (left, left_share), (right, right_share) = strip.evaluate(ENDS)
    assert (left, right) == (low, high)
    assert left_share == pytest.approx(first[0], abs=0.1)
    assert right_share == pytest.approx(last[2], abs=0.1)


def test_one_request_is_in_flight_at_a_time_and_the_latest_numbers_win(page: Page) -> None:
    in_flight: set[Request] = set()
    most, rows = 0, []

    def answer(route: Route) -> None:
        nonlocal most
        in_flight.add(route.request)
        most = max(most, len(in_flight))
        body = json.loads(route.request.post_data or "")
        rows.append(body["observations"] if "observations" in body else body["inputs"][0]["data"])
        page.wait_for_timeout(100)  # while more keys are pressed
        in_flight.discard(route.request)
        route.continue_()

    asks = re.compile("/models/many/act$|/models/many/versions/1/infer$")
    page.route(asks, answer)
    page.evaluate(
        """async () => {
            const slider = document.querySelectorAll(".number input[type=range]")[2];
            for (let i = 0; i <= 40; i += 1) {
                slider.value = i;
                slider.dispatchEvent(new Event("input"));
                await new Promise((resolve) => setTimeout(resolve, 10));
            }
        }"""
    )
    settle(page)
    page.unroute(asks)
    assert most == 1
    single = [batch[0] for batch in rows if len(batch) == 1]
    assert 2 <= len(single) < 41  # of 41 positions, some were never asked about
    assert single[-1] == asked(page)
    assert len(rows[-1]) > 1  # the strips, once the sliders rest
    expect(page.locator(".chosen")).to_contain_text("low")


def test_a_number_outside_the_seen_range_has_a_warning_and_moves_nothing(
    many: Many, visit: Visit
) -> None:
    page = visit(many.url, forgive="422")
    settle(page)
    everything = ":is(button, input, canvas, h2, table, output)"
    before = boxes(page, everything)
    for text, said in (
        ("99", "level 99 is outside"),
        ("1e300", "1e+300 is beyond float32"),
        ("0.5", ""),
    ):
        field(page, "level").fill(text)
        expect(page.locator("#form-status")).to_contain_text(said)
        assert boxes(page, everything) == before
        outside = page.locator(".number").nth(LEVEL)
        if said:
            expect(outside).to_have_class("number outside")
        else:
            expect(outside).to_have_class("number")
            expect(page.locator("#form-status")).to_have_text("")
    assert asked(page)[LEVEL] == 0.5
    assert slider(page, "level").input_value() == "150"  # of 200, from -1 to 1
    field(page, "level").fill("")  # about to be written
    assert asked(page)[LEVEL] == 0.5


def test_random_numbers_are_within_the_seen_ranges_and_typical_ones_are_the_first(
    page: Page, many: Many
) -> None:
    first, observations = asked(page), many.card["observations"]
    page.get_by_role("button", name="Random numbers").click()
    row = asked(page)
    for low, number, high in zip(
        observations["seen_low"], row, observations["seen_high"], strict=True
    ):
        assert low <= number <= high
    assert sum(one != other for one, other in zip(first, row, strict=True)) == SIZE - 1
    settle(page)
    expect(page.locator("#form-status")).to_have_text("")
    page.get_by_role("button", name="Typical numbers").click()
    assert asked(page) == first


def test_what_never_changed_cannot_slide_and_can_be_written(page: Page) -> None:
    expect(slider(page, "constant")).to_be_disabled()
    constant = page.locator(".number").nth(1)
    expect(constant).to_contain_text("always 2.5 in training")
    expect(constant.locator("canvas")).to_be_hidden()
    field(page, "constant").fill("3")
    expect(page.locator("#form-status")).to_contain_text("constant 3 is outside 2.5 to 2.5")


def test_more_than_twelve_numbers_are_folded(page: Page) -> None:
    visible = page.locator(".number:visible")
    expect(visible).to_have_count(SHOWN)
    page.get_by_text("8 more of the 20 numbers").click()
    expect(visible).to_have_count(SIZE)


def test_the_command_that_it_shows_gets_the_same_answer(page: Page) -> None:
    require_program("curl", "curl")
    slider(page, "level").press("End")
    settle(page)
    page.get_by_text("The same request with curl").click()
    command = shlex.split(page.locator("#curl").inner_text())
    finished = subprocess.run(command, capture_output=True, check=True)
    answer = json.loads(finished.stdout)
    assert answer["actions"] == [2]
    expect(page.locator("#value")).to_have_text(f"{answer['state_values'][0]:.2f}")


def test_it_says_where_live_episodes_are(page: Page, many: Many) -> None:
    expect(page.locator("#lead")).to_contain_text("many:Many-v0: from 20 numbers it chooses one")
    expect(page.locator("#lead")).to_contain_text("Live episodes are for CartPole only")
    assert page.get_by_role("link", name="Watch it balance").count() == 0
    page.get_by_role("link", name="cartpole", exact=True).click()
    page.get_by_role("link", name="Watch it balance").click()
    expect(page).to_have_url(f"{many.service.url}/")


def test_outputs_that_are_no_numbers_are_shown_as_such(page: Page) -> None:
    answer = {
        "actions": [0],
        "action_logits": [[None] * 3],
        "action_probabilities": [[None] * 3],
        "state_values": [None],
        "model": {"name": "many", "version": 1},
        "warnings": [],
    }
    page.route("**/act", lambda route: route.fulfill(json=answer))
    slider(page, "level").press("End")
    expect(page.locator("#value")).to_have_text("not a number")
    assert [row[2:] for row in shown(page)] == [["not a number", "not a number"]] * 3


def test_the_heat_map_has_the_forms_state_as_a_ring(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/models/cartpole")
    expect(page.locator("#heat-section")).to_be_visible()
    page.get_by_text("As numbers").click()
    limit = float(page.locator("#velocity-high").inner_text())
    for angle, velocity in ((0.1, -1.0), (-0.15, 0.5)):
        field(page, "pole angle").fill(str(angle))
        field(page, "pole angular velocity").fill(str(velocity))
        # The middle of the pixels in the colour of the ring.
        x, y = page.evaluate(
            """async () => {
                const { pageColors } = await import("/web/stage.js");
                const hex = pageColors().ink.trim();
                const ink = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
                const canvas = document.getElementById("heat");
                const { width, height } = canvas;
                const copy = new OffscreenCanvas(width, height)
                    .getContext("2d", { willReadFrequently: true });
                copy.drawImage(canvas, 0, 0);
                const { data } = copy.getImageData(0, 0, width, height);
                let [sumX, sumY, count] = [0, 0, 0];
                for (let i = 0; i < data.length; i += 4) {
                    if (!ink.every((part, k) => Math.abs(data[i + k] - part) < 12)) continue;
                    [sumX, sumY] = [sumX + (i / 4) % width, sumY + Math.floor(i / 4 / width)];
                    count += 1;
                }
                return [sumX / count / width, sumY / count / height];
            }"""
        )
        assert x == pytest.approx((1 + angle / 0.2094) / 2, abs=0.02)
        assert y == pytest.approx((1 - velocity / limit) / 2, abs=0.02)


def test_strips_of_another_version_under_the_same_number_are_not_shown(page: Page) -> None:
    answers: list[object] = []

    def another_once(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        if not answers:
            body["parameters"]["digest"] = "another"
        answers.append(body)
        route.fulfill(response=answer, json=body)

    page.route("**/infer", another_once)
    slider(page, "level").press("End")
    settle(page)
    assert len(answers) == 2
