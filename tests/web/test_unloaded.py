"""What the live page does when a version that it asks by its number is selected otherwise."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from serving.client import PolicyClient
from serving.registry.selection import Canary, Selection, write_selection
from tests.artefacts import edit_card, publish
from tests.conftest import Service, Trained, running_service, wait_until
from tests.web.conftest import Visit
from tests.web.test_live_page import wait_for
from tests.web.test_side_by_side import chosen

Select = Callable[[Selection], None]

# The page asks for the loaded versions every 10 seconds by this clock.
TEN_TIMES_AS_FAST = """
const now = performance.now.bind(performance);
performance.now = () => 10 * now();
"""


@pytest.fixture(scope="module")
def changing(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Select]]:
    """Version 1 is served, others can be selected; version 3 is of another environment."""
    folder = tmp_path_factory.mktemp("changing")
    models = shutil.copytree(trained.models, folder / "models")
    publish(trained.model_dir, models / "cartpole" / "2")
    publish(
        trained.model_dir,
        models / "cartpole" / "3",
        lambda version: edit_card(version, lambda card: card.update(environment="CartPole-v0")),
    )
    write_selection(models / "cartpole", Selection(1))
    with running_service(models, folder / "log", "--workers", "1") as running:
        PolicyClient(running.url).wait_until_ready(60)
        yield running, lambda selection: write_selection(models / "cartpole", selection)


def beside(service: Service, select: Select, selection: Selection, version: int) -> None:
    """Select a version beside the served one, and wait until it is loaded."""
    select(selection)

    def is_loaded() -> bool:
        (model,) = PolicyClient(service.url).models().models
        return any(
            one.version == version and one.state in ("canary", "shadow") for one in model.versions
        )

    wait_until(is_loaded)


def expect_single_cart(page: Page, said: str, options: list[str]) -> None:
    expect(page.locator("#beside-ended")).to_have_text(said)
    expect(page.get_by_role("heading", name="Side by side")).to_be_hidden()
    expect(page.get_by_label("Version beside it").locator("option")).to_have_text(options)
    expect(page.get_by_label("16", exact=True)).to_be_enabled()
    expect(page.locator("#problem")).to_be_hidden()
    wait_for(page, "steps", "n >= 20")  # it continues by itself


def test_a_version_that_is_unloaded_leaves_a_single_cart(
    changing: tuple[Service, Select], visit: Visit
) -> None:
    service, select = changing
    beside(service, select, Selection(1, canaries=(Canary(2, 0.5),)), 2)
    page = visit(service.url, forgive="404")
    chosen(page, "version 2 (canary)")
    wait_for(page, "second-steps", "n >= 1")
    select(Selection(1))  # as `promote 2 --share 0` does
    said = "Version 2 is not loaded any more: the comparison with it has ended."
    expect_single_cart(page, said, ["no other version is loaded"])
    expect(page.locator("#announcement")).to_have_text(said)
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#beside-ended")).to_be_hidden()


def test_a_version_that_is_served_by_now_is_not_compared_with_itself(
    changing: tuple[Service, Select], visit: Visit
) -> None:
    service, select = changing
    beside(service, select, Selection(1, canaries=(Canary(2, 0.5),)), 2)
    page = visit(service.url, first=TEN_TIMES_AS_FAST, forgive="404")  # until all workers follow
    chosen(page, "version 2 (canary)")
    page.get_by_label("Version beside it").focus()  # as after a choice with the keyboard
    select(Selection(2, labels={"before": 1}))  # as `promote 2` does
    said = "Version 2 is served now: the comparison with it has ended."
    expect_single_cart(page, said, ["none", "version 1 (labelled)"])
    expect(page.get_by_label("Version beside it")).to_have_value("")
    expect(page.locator("#served-model")).to_have_text("cartpole version 2")


def test_a_shadow_that_cannot_be_compared_does_not_stop_the_carts(
    changing: tuple[Service, Select], visit: Visit
) -> None:
    service, select = changing
    beside(service, select, Selection(1, shadow=3), 3)
    page = visit(service.url, forgive="404")
    with page.expect_response("**/comparison") as asked:
        chosen(page, "version 3 (shadow)")
    assert asked.value.status == 404  # it is of another environment than the served one
    wait_for(page, "second-steps", "n >= 20")
    expect(page.locator("#traffic")).to_be_hidden()
    expect(page.locator("#problem")).to_be_hidden()


def test_a_replay_of_a_version_that_is_unloaded_says_so(
    changing: tuple[Service, Select], visit: Visit
) -> None:
    service, select = changing
    beside(service, select, Selection(1, canaries=(Canary(2, 0.5),)), 2)
    page = visit(f"{service.url}/?model=cartpole&version=2&seed=3", forgive="404")
    wait_for(page, "steps", "n >= 1")
    select(Selection(1))
    expect(page.locator("#problem")).to_have_text(
        "The request failed: 404 version 2 of cartpole is not loaded"
    )
