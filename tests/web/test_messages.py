"""Where nothing is served, the pages say what is so and what to do, and continue by themselves."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import urllib3
from playwright.sync_api import Route, expect

from tests.artefacts import publish
from tests.conftest import Service, Trained, run, running_service, wait_until
from tests.web.conftest import Unserved, Visit, select
from tests.web.test_layout import DESKTOP, OBSERVE_SHIFTS, PHONE, boxes
from tests.web.test_live_page import wait_for

pytestmark = pytest.mark.long


def promote(name: str) -> str:
    return f"python -m serving promote --name {name}"


def verify(name: str, version: int) -> str:
    return f"python -m serving verify models/{name}/{version}"


MESSAGES = {
    "cartpole": (
        "The models folder has no version of cartpole yet. make demo or python -m training train "
        "--name cartpole makes one."
    ),
    "empty": (
        "The models folder has no version of empty yet. python -m training train --name empty "
        "makes one."
    ),
    "refused": (
        "No version of refused is good. The newest, version 2, is refused: its card says that it "
        f"is not solved. {verify('refused', 2)} checks it again; a good one is served as soon as "
        "it is exported."
    ),
    "unloaded": (
        f"An operator has unloaded unloaded. {promote('unloaded')} serves its newest good version "
        "again."
    ),
    "missing": (
        f"Version 7 of missing is selected, and it is not there. {promote('missing')} selects the "
        "newest good one."
    ),
    "pinned": (
        "Version 1 of pinned is selected, and it is refused: its card says that it is not solved. "
        f"{verify('pinned', 1)} checks it again; {promote('pinned')} selects the newest good one."
    ),
    "none": "This service has no model called none: choose another, or export one of this name.",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_page_of_a_model_says_why_it_is_not_served(
    name: str, unserved: Unserved, visit: Visit
) -> None:
    page = visit(f"{unserved.service.url}/models/{name}", forgive="404")
    expect(page.locator("#unavailable")).to_have_text(
        f"{MESSAGES[name]} This page then continues by itself."
    )
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Policy card: {name}")
    expect(page.locator("#problem")).to_be_hidden()
    # The way to the others, and nothing of a policy that there is not.
    others = page.locator("#others li")
    expect(others).to_have_text(["cartpole", "empty", "missing", "pinned", "refused", "unloaded"])
    expect(page.locator("#ask-heading")).to_be_hidden()
    if name in ("refused", "pinned"):
        expect(page.locator("#versions")).to_contain_text("its card says that it is not solved")
        notice, versions = boxes(page, "#unavailable, #versions")
        assert versions[1] >= notice[1] + notice[3]  # not covered


@pytest.mark.parametrize("name", ["refused", "pinned"])
def test_the_messages_are_read_on_a_phone(name: str, unserved: Unserved, visit: Visit) -> None:
    page = visit(f"{unserved.service.url}/models/{name}", viewport=PHONE)
    expect(page.locator("#unavailable")).to_contain_text(MESSAGES[name])
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    notice, versions = boxes(page, "#unavailable, #versions")
    assert versions[1] >= notice[1] + notice[3]


def test_the_live_page_says_the_same_of_the_default_model(unserved: Unserved, visit: Visit) -> None:
    page = visit(unserved.service.url)
    expect(page.locator("#unavailable")).to_contain_text(MESSAGES["cartpole"])


@pytest.mark.parametrize("name", ["pinned", "unloaded", "missing"])
def test_the_command_that_a_message_names_helps_and_the_page_goes_on(
    name: str, unserved: Unserved, visit: Visit
) -> None:
    of_the_other_worker = "404|503"
    page = visit(f"{unserved.service.url}/models/{name}", forgive=of_the_other_worker)
    command = page.locator("#unavailable code").last
    expect(command).to_have_text(promote(name))
    selection = (unserved.models / name / "serve.json").read_text()
    try:
        _, _, *arguments = shlex.split(command.inner_text())
        finished = run(*arguments, "--models", str(unserved.models))
        assert finished.returncode == 0, finished.stderr
        expect(page.locator("#heat-section")).to_be_visible()
        expect(page.locator("#unavailable")).to_be_hidden()
        expect(page.locator("#ask-heading")).to_be_visible()
    finally:
        (unserved.models / name / "serve.json").write_text(selection)


def test_the_page_of_an_unknown_model_shows_it_as_soon_as_it_is_there(
    unserved: Unserved, trained: Trained, visit: Visit
) -> None:
    page = visit(f"{unserved.service.url}/models/new", forgive="404|503")
    expect(page.locator("#unavailable")).to_contain_text("no model called new")
    folder = unserved.models / "new"
    try:
        folder.mkdir()
        publish(trained.model_dir, folder / "1")
        expect(page.locator("#heat-section")).to_be_visible()
        expect(page.locator("#served-model")).to_have_text("new version 1")
    finally:
        shutil.rmtree(folder)


def test_an_unknown_model_is_an_error_for_programs_and_a_page_for_people(
    service: Service,
) -> None:
    address = f"{service.url}/models/none"
    asked = {"Accept": "text/html"}
    first = urllib3.request("GET", address, headers=asked)
    assert (first.status, first.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    # Never 304 without the page: the model may have been there before.
    again = urllib3.request(
        "GET", address, headers={**asked, "If-None-Match": first.headers["ETag"]}
    )
    assert (again.status, again.data) == (404, first.data)
    other = urllib3.request("GET", address)
    assert (other.status, other.headers["Content-Type"]) == (404, "application/problem+json")


def test_pages_say_what_happens_to_the_model_that_they_show(
    trained: Trained, visit: Visit, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained.models, tmp_path / "models") / "cartpole"
    with running_service(folder.parent, tmp_path / "log") as service:
        wait_until(lambda: (tmp_path / "log").read_text().count("serving cartpole version 1") == 2)
        live = visit(service.url, forgive="404|503")
        wait_for(live, "steps", "n >= 1")
        card = visit(f"{service.url}/models/cartpole", forgive="404|503")
        expect(card.locator(".chosen")).to_have_count(1)
        select(folder, "nothing")
        expect(live.locator("#unavailable")).to_contain_text("An operator has unloaded cartpole.")
        publish(trained.model_dir, folder / "2")
        select(folder, "newest")
        expect(live.locator("#unavailable")).to_be_hidden()
        expect(live.locator("#served-model")).to_have_text("cartpole version 2")
        card.get_by_role("button", name="Random numbers").click()
        expect(card.locator("#problem")).to_contain_text(
            "Version 2 is now served, and this page is about version 1. Reload it"
        )
        card.reload()
        expect(card.get_by_role("heading", level=1)).to_contain_text("version 2")
        for page in (live, card):
            page.close()


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ([(1, "waiting", "it is being examined")], "A version of m is being checked"),
        ([(1, "labelled", "labelled old")], "No version of m is served. "),
        (
            [(3, "waiting", "not selected: version 2 is selected"), (2, "waiting", "")],
            "Version 2 of m is selected, and it is not there",
        ),
    ],
)
def test_states_that_pass_are_told_too(
    report: list[tuple[int, str, str]], said: str, service: Service, visit: Visit
) -> None:
    page = visit(f"{service.url}/web/unserved.js", forgive="404")  # of a favicon
    versions = [dict(zip(("version", "state", "reason"), one, strict=True)) for one in report]
    text = page.evaluate(
        """async (versions) => {
            const { whyNothingIsServed } = await import("/web/unserved.js");
            return whyNothingIsServed({ name: "m", versions });
        }""",
        versions,
    )
    assert text.startswith(said)


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_heat_map_is_seen_with_its_answer_which_moves_nothing(
    size: dict[str, int], service: Service, visit: Visit
) -> None:
    # As tall as the page: what moves out of sight is not a layout shift.
    page = visit(f"{service.url}/docs", viewport=size | {"height": 6000}, first=OBSERVE_SHIFTS)
    held: list[Route] = []

    def hold(route: Route) -> None:
        if json.loads(route.request.post_data or "")["inputs"][0]["shape"] == [41 * 41, 4]:
            held.append(route)
        else:
            route.continue_()

    page.route("**/infer", hold)
    page.goto(f"{service.url}/models/cartpole")
    expect(page.locator(".chosen")).to_have_count(1)
    while not held:
        page.wait_for_timeout(20)
    expect(page.locator("#heat-section")).to_be_hidden()  # a map without colours says nothing
    everything = "#card :is(h2, p, table, canvas, img, summary, .axis):not(details table)"
    before = boxes(page, everything)
    held[0].continue_()
    expect(page.locator("#heat-section")).to_be_visible()
    assert boxes(page, everything) == before
    assert page.evaluate("window.shifts") == []
