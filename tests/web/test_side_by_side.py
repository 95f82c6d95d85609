"""Two versions from the same start, and how they compare."""

import shutil
from collections.abc import Iterator
from typing import Any, cast

import pytest
from msgspec.structs import replace
from playwright.sync_api import Page, Route, expect

from serving.client import PolicyClient
from serving.registry.selection import Selection, read_selection, write_selection
from tests.artefacts import publish
from tests.conftest import Service, Trained, running_service
from tests.web.conftest import Visit
from tests.web.test_live_page import answer_every_row, wait_for


@pytest.fixture(scope="module")
def loaded(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Version 1 is served, 2 is labelled, 3 is the shadow; 4 is not selected."""
    folder = tmp_path_factory.mktemp("beside")
    models = shutil.copytree(trained.models, folder / "models")
    for version in ("2", "3", "4"):
        publish(trained.model_dir, models / "cartpole" / version)
    selection = Selection(1, labels={"candidate": 2}, shadow=3)
    write_selection(models / "cartpole", selection)
    with running_service(models, folder / "log", "--workers", "1") as running:
        PolicyClient(running.url).wait_until_ready(60)
        yield running


def chosen(page: Page, title: str) -> None:
    page.get_by_label("Version beside it").select_option(title)
    expect(page.get_by_role("heading", name="Side by side")).to_be_visible()


def test_the_other_loaded_versions_can_be_chosen(
    loaded: Service, service: Service, visit: Visit
) -> None:
    page = visit(loaded.url, reduced_motion="reduce")
    select = page.get_by_label("Version beside it")
    expect(select.locator("option")).to_have_text(
        ["none", "version 3 (shadow)", "version 2 (labelled)"]
    )
    alone = visit(service.url, reduced_motion="reduce").get_by_label("Version beside it")
    expect(alone).to_be_disabled()
    expect(alone).to_have_text("no other version is loaded")


SAME_TEXT = """(ids) => {
    const [one, other] = ids.map((id) => document.getElementById(id).textContent);
    return one === other;
}"""


@pytest.mark.long  # two times 500 requests, one after the other
def test_equal_versions_do_the_same_from_the_same_start(loaded: Service, visit: Visit) -> None:
    page = visit(loaded.url, reduced_motion="reduce")
    chosen(page, "version 2 (labelled)")
    expect(page.get_by_label("16", exact=True)).to_be_disabled()
    expect(page.locator("#first-title")).to_have_text("version 1 (served)")
    expect(page.locator("#second-title")).to_have_text("version 2 (labelled)")
    page.get_by_label("sampled").check()  # both with the same random numbers
    page.get_by_label("Speed").select_option("unlimited")
    with page.expect_request("**/v2/models/cartpole/versions/2/infer"):
        page.get_by_role("button", name="Play").click()
    expect(page.locator("#second-mean")).to_contain_text(" of 1")
    page.get_by_role("button", name="Pause").click()
    for name in ("mean", "longer", "steps", "right", "value"):
        # Read together: a step can still be in flight after the pause.
        page.wait_for_function(SAME_TEXT, arg=[f"first-{name}", f"second-{name}"])
    expect(page.locator("#first-longer")).to_have_text("0")
    expect(page.locator("#same-action")).to_contain_text("The same most probable action in 100.0 %")
    page.get_by_label("Version beside it").select_option("none")
    expect(page.get_by_role("heading", name="Side by side")).to_be_hidden()
    expect(page.get_by_label("16", exact=True)).to_be_enabled()


def test_versions_that_differ_are_compared(loaded: Service, visit: Visit) -> None:
    page = visit(loaded.url, reduced_motion="reduce")

    def follow_the_pole(route: Route) -> None:
        """Push towards where the pole leans, which balances for longer than always to one side."""
        (given,) = cast(dict[str, Any], route.request.post_data_json)["inputs"]
        rows = given["shape"][0]
        outputs = {
            "action_logits": ([rows, 2], [2.0, 0.0] * rows),
            "action_probabilities": ([rows, 2], [0.875, 0.125] * rows),
            "actions": ([rows], [int(angle > 0) for angle in given["data"][2::4]]),
            "state_values": ([rows], [12.5] * rows),
        }
        described = [
            {"name": name, "shape": shape, "data": data} for name, (shape, data) in outputs.items()
        ]
        model = {"model_name": "cartpole", "model_version": "2", "parameters": {"seed": 1}}
        route.fulfill(json={**model, "outputs": described})

    page.route("**/act", answer_every_row(action=1, right=0.75))
    page.route("**/infer", follow_the_pole)
    chosen(page, "version 2 (labelled)")
    page.get_by_label("Speed").select_option("unlimited")
    page.get_by_role("button", name="Play").click()
    wait_for(page, "second-longer", "n >= 1")
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#first-longer")).to_have_text("0")
    for name, first, second in (("right", "75.0 %", "12.5 %"), ("value", "50.00", "12.50")):
        expect(page.locator(f"#first-{name}")).to_have_text(first)
        expect(page.locator(f"#second-{name}")).to_have_text(second)
    # A cart that is always pushed to one side falls within 11 steps.
    wait_for(page, "first-mean", "n < 12")
    wait_for(page, "second-mean", "n > 12")
    expect(page.locator("#same-action")).to_contain_text("The same most probable action in 0.0 %")


def test_a_shadow_is_compared_on_what_clients_have_asked(loaded: Service, visit: Visit) -> None:
    page = visit(loaded.url, reduced_motion="reduce")
    chosen(page, "version 3 (shadow)")
    PolicyClient(loaded.url).act([[0.01, -0.02, 0.03, 0.04]] * 50)
    page.get_by_role("button", name="Play").click()
    traffic = page.locator("#traffic")
    expect(traffic).to_contain_text("the most probable action was the same in 100.0 %")
    expect(traffic).to_contain_text("differed by 0.00 on average")


def test_the_state_of_a_version_is_the_one_that_it_has_now(loaded: Service, visit: Visit) -> None:
    page = visit(loaded.url, forgive="404")  # there is no shadow to compare any more
    chosen(page, "version 3 (shadow)")
    expect(page.locator("#second-title")).to_have_text("version 3 (shadow)")
    model = loaded.log.parent / "models" / "cartpole"
    before = read_selection(model)
    try:
        write_selection(model, replace(before, labels={**before.labels, "next": 3}, shadow=None))
        expect(page.locator("#second-title")).to_have_text("version 3 (labelled)", timeout=20_000)
    finally:
        write_selection(model, before)
