"""The policy card as a page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from serving.client import PolicyClient
from tests.artefacts import edit_card, publish
from tests.conftest import ROOT, Service, Trained, running_service
from tests.web.conftest import Visit
from tests.web.test_layout import DESKTOP, PHONE, boxes

SCREENSHOTS = ROOT / "docs" / "screenshots"


@pytest.fixture
def page(service: Service, visit: Visit) -> Page:
    page = visit(f"{service.url}/models/cartpole")
    expect(page.locator("#heat-section")).to_be_visible()
    return page


def cells(page: Page, table: str, row: str) -> list[str]:
    """The cells of a table's row, after its header."""
    found = page.locator(f"#{table} tr").filter(has=page.get_by_role("rowheader", name=row))
    return found.get_by_role("cell").all_inner_texts()


def test_it_shows_the_evaluation(page: Page, trained: Trained) -> None:
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    expect(page.get_by_role("heading", level=1)).to_have_text("Policy card: cartpole version 1")
    greedy = card["evaluation"]["greedy"]
    low, high = greedy["confidence_interval"]
    shown = cells(page, "evaluations", "greedy")
    assert [shown[0], shown[1]] == [str(greedy["episodes"]), f"{greedy['mean']:g}"]
    assert shown[2] == f"{low:.5g} to {high:.5g}"
    expect(page.locator("#versions")).to_contain_text("served")
    expect(page.locator("#origin")).to_contain_text(card["environment"])


def test_a_policy_without_a_threshold_that_was_learned_elsewhere_has_a_page(
    trained: Trained, tmp_path: Path, visit: Visit
) -> None:
    version = tmp_path / "models" / "cartpole" / "1"
    version.parent.mkdir(parents=True)
    publish(
        trained.model_dir,
        version,
        lambda copy: edit_card(
            copy, lambda card: card.update(training=None, reward_threshold=None)
        ),
    )
    with (
        running_service(tmp_path / "models", tmp_path / "log") as service,
        PolicyClient(service.url) as client,
    ):
        client.wait_until_ready(60)
        page = visit(f"{service.url}/models/cartpole")
        expect(page.locator("#heat-section")).to_be_visible()  # its last request
        expect(page.locator("#origin")).to_contain_text("elsewhere")
        expect(page.locator("#origin")).to_contain_text("no reward threshold to reach")
        page.close()


def test_it_shows_the_ranges_that_training_saw(page: Page, trained: Trained) -> None:
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    observations = card["observations"]
    for i, name in enumerate(observations["names"]):
        low, high, _ = cells(page, "ranges", name.replace("_", " "))
        assert float(low) == pytest.approx(observations["seen_low"][i], rel=1e-4)
        assert float(high) == pytest.approx(observations["seen_high"][i], rel=1e-4)


def test_the_heat_map_is_the_services_answer(
    page: Page, service: Service, trained: Trained
) -> None:
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    seen = (card["observations"]["seen_low"][3], card["observations"]["seen_high"][3])
    # Every fifth of 41 points per side; beyond 12 degrees the episode terminates.
    angles = np.linspace(-np.radians(12), np.radians(12), 41)[::5]
    velocities = np.linspace(-1, 1, 41)[::5] * np.abs(seen).max()
    page.get_by_text("As numbers").click()
    assert page.locator("#heat-angles td").all_inner_texts() == [f"{a:.2f}" for a in angles]
    rows = page.locator("#heat-rows tr").all()
    assert len(rows) == len(velocities)
    with PolicyClient(service.url) as client:
        for row, velocity in zip(rows, velocities[::-1], strict=True):  # the highest on top
            shown = [float(text) for text in row.locator("td").all_inner_texts()]
            observations = np.array([[0.0, 0.0, angle, velocity] for angle in angles])
            answer = client.act(observations)
            expected = [100 * right for _, right in answer.action_probabilities]
            assert shown == pytest.approx(expected, abs=0.6)  # in whole per cent
    # The colours agree: left at the lower left, right at the upper right.
    corners = page.evaluate(
        """() => {
            const { width, height } = document.getElementById("heat");
            const context = document.getElementById("heat").getContext("2d");
            const { data } = context.getImageData(0, 0, width, height);
            const at = (x, y) => [...data.slice(4 * (y * width + x)).slice(0, 4)];
            return [at(5, height - 5), at(width - 5, 5)];
        }"""
    )
    (left_red, _, left_blue, _), (right_red, _, right_blue, _) = corners
    assert left_blue > left_red
    assert right_red > right_blue


def test_pictures_are_shown_if_they_were_exported(page: Page, trained: Trained) -> None:
    for file, place in (("learning_curve.png", "learning-curve"), ("episode.gif", "episode")):
        picture = page.locator(f"#{place} img")
        if (trained.model_dir / "assets.extra" / file).exists():
            expect(picture).to_have_attribute("src", re.compile("^blob:"))  # it comes after the map
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
            expect(picture).to_be_visible()
        else:
            expect(picture).to_be_hidden()


def test_a_picture_that_the_served_version_no_longer_has_is_left_out(
    service: Service, visit: Visit
) -> None:
    page = visit(
        f"{service.url}/models/cartpole",
        forgive="404",
        first="""
            const send = window.fetch;
            window.fetch = (url, options) =>
                send(String(url).replace("learning_curve.png", "none.png"), options);
        """,
    )
    expect(page.locator("#episode img")).to_have_attribute("src", re.compile("^blob:"))
    expect(page.locator("#learning-curve")).to_be_hidden()


SECTIONS = [
    "Ask the policy",
    "How good it is",
    "What it does where",
    "How it was trained",
    "What it saw in training",
    "Versions",
]


def test_the_sections_come_in_the_order_of_a_visitors_questions(page: Page) -> None:
    assert page.locator("#card h2").all_inner_texts() == SECTIONS


def test_a_wide_screen_has_two_columns(service: Service, visit: Visit) -> None:
    page = visit(f"{service.url}/models/cartpole", viewport=DESKTOP)
    expect(page.locator("#heat-section")).to_be_visible()
    _, good, where, trained, seen, versions = boxes(page, "#card h2")
    assert good[0] == where[0] < trained[0] == seen[0] == versions[0]
    assert good[1] == trained[1]


def test_a_phone_has_each_cell_with_its_label_and_all_of_it_in_sight(
    service: Service, trained: Trained, visit: Visit
) -> None:
    page = visit(f"{service.url}/models/cartpole", viewport=PHONE)
    expect(page.locator("#heat-section")).to_be_visible()
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    for left, _, width, _ in boxes(page, ".stacked td"):
        assert left >= 0
        assert left + width <= PHONE["width"]
    greedy = page.locator("#evaluations tr").first.locator("td")
    labels = greedy.evaluate_all("(cells) => cells.map((cell) => cell.dataset.label)")
    assert labels == [
        "Episodes",
        "Mean",
        "95% confidence interval",
        "Standard deviation",
        "Minimum",
    ]
    said = greedy.nth(1).evaluate("(cell) => getComputedStyle(cell, '::before').content")
    assert said == '"Mean"'
    # Blocks to the eye, and a table to a screen reader.
    table = page.get_by_role("table", name="Returns of evaluation episodes")
    assert table.get_by_role("columnheader").count() == 6
    rows = len(card["evaluation"]) + len(card["robustness"])
    assert table.get_by_role("row").count() == 1 + rows
    assert table.get_by_role("rowheader").count() == rows
    assert table.get_by_role("cell").count() == 5 * rows
