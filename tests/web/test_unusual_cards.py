"""Cards of other policies than the live page can play, short ones, and names that are long."""

import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import expect

from serving.client import PolicyClient
from tests.artefacts import edit_card, publish
from tests.conftest import Trained, running_service, wait_until
from tests.web.conftest import Visit
from tests.web.test_layout import DESKTOP, PHONE

pytestmark = pytest.mark.long

LONG = "l" * 80


def wrapped(card: dict[str, Any]) -> None:
    card["environment_options"]["wrappers"] = ["somebodys:twice"]


def beam(card: dict[str, Any]) -> None:
    card["environment"] = "BalanceBeam-v0"
    card["actions"]["names"] = ["none", "left"]


def only_what_serving_requires(card: dict[str, Any]) -> None:
    required = {"environment", "observations", "actions", "solved", "evaluation", "checksums"}
    for name in card.keys() - required:
        del card[name]
    card["evaluation"] = {kind: {"mean": 480.5} for kind in ("greedy", "sampled")}
    observations = card["observations"]
    card["observations"] = {name: observations[name] for name in ("names", "seen_low", "seen_high")}


def long_names(card: dict[str, Any]) -> None:
    card["environment"] = "E" * 160


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "cartpole": lambda _: None,
    "wrapped": wrapped,
    "beam": beam,
    "minimal": only_what_serving_requires,
    LONG: long_names,
}


class Unusual(NamedTuple):
    url: str
    models: Path


@pytest.fixture(scope="module")
def unusual(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unusual]:
    models = tmp_path_factory.mktemp("unusual") / "models"
    for name, change in CHANGES.items():
        (models / name).mkdir(parents=True)
        publish(
            trained.model_dir,
            models / name / "1",
            partial(edit_card, change=change),
        )
    with running_service(models, models.parent / "log", "--workers", "1") as service:
        client = PolicyClient(service.url)
        client.wait_until_ready(60)
        wait_until(lambda: all(model.version == 1 for model in client.models().models))
        yield Unusual(service.url, models)


@pytest.mark.parametrize("name", ["wrapped", "beam"])
def test_the_live_page_leaves_what_it_cannot_play_to_the_card(
    name: str, unusual: Unusual, visit: Visit
) -> None:
    page = visit(f"{unusual.url}/?model={name}", forgive="400|422")
    expect(page).to_have_url(f"{unusual.url}/models/{name}")
    expect(page.locator("#lead")).to_contain_text("Live episodes are for CartPole only")
    assert page.get_by_role("link", name="Watch it balance").count() == 0


def test_only_cartpole_has_a_map_of_its_action_right(unusual: Unusual, visit: Visit) -> None:
    page = visit(f"{unusual.url}/models/beam")
    expect(page.locator(".chosen")).to_have_count(1)
    expect(page.locator("#heat-section")).to_have_attribute("hidden", "")


def test_a_card_with_only_what_serving_requires_is_shown(unusual: Unusual, visit: Visit) -> None:
    page = visit(f"{unusual.url}/models/minimal")
    expect(page.locator(".chosen")).to_have_count(1)
    expect(page.locator("#heat-section")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#lead")).to_contain_text("Its mean return is 480.5.")
    texts = page.locator("#origin dd, #evaluations td, #ranges td").all_inner_texts()
    assert "480.5" in texts
    assert [text for text in texts if not text or "undefined" in text or "NaN" in text] == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_long_names_do_not_make_the_page_wider(
    size: dict[str, int], unusual: Unusual, visit: Visit
) -> None:
    page = visit(f"{unusual.url}/models/{LONG}", viewport=size)
    expect(page.locator(".chosen")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_a_name_that_is_no_encoding_has_a_page(unusual: Unusual, visit: Visit) -> None:
    page = visit(f"{unusual.url}/models/100%", forgive="404")
    expect(page.locator("#unavailable")).to_contain_text("no model called 100%:")
    expect(page.get_by_role("heading", level=1)).to_have_text("Policy card: 100%")


def test_a_page_says_that_another_version_has_taken_its_number(
    trained: Trained, unusual: Unusual, visit: Visit
) -> None:
    folder, client = unusual.models / "cartpole", PolicyClient(unusual.url)
    page = visit(f"{unusual.url}/models/cartpole")
    expect(page.locator(".chosen")).to_have_count(1)
    row = json.loads((trained.model_dir / "assets.extra" / "golden.json").read_text())
    before = client.act(row["observations"][:1], model="cartpole").model.digest
    shutil.rmtree(folder / "1")
    publish(
        trained.model_dir,
        folder / "1",
        lambda version: edit_card(version, lambda card: card["actions"].update(names=["A", "B"])),
    )
    wait_until(lambda: client.act(row["observations"][:1], model="cartpole").model.digest != before)
    page.get_by_role("button", name="Random numbers").click()
    expect(page.locator("#problem")).to_have_text(
        "Version 1 has been replaced by another of the same number. Reload this page to see it."
    )
    page.reload()
    expect(page.locator(".chosen")).to_contain_text("B")
    expect(page.locator("#problem")).to_be_hidden()
