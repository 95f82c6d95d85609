"""Pictures of every page and state, at two widths, light and dark, for people to look at.

They are kept in `docs/screenshots/`: UPDATE_SCREENSHOTS=1 makes them anew.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from serving.client import PolicyClient
from serving.registry.selection import Selection, write_selection
from tests.artefacts import publish
from tests.conftest import ROOT, Service, Trained, running_service, running_with_key
from tests.web.conftest import Visit
from tests.web.test_form import settle
from tests.web.test_live_page import wait_for

FOLDER = ROOT / "docs" / "screenshots"
SIZES = {390: 844, 1440: 900}
COLORS = 64  # of a kept picture, which is a third of the size then

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def shadowed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a shadow beside its served version."""
    folder = tmp_path_factory.mktemp("screenshots")
    models = shutil.copytree(trained.models, folder / "models")
    publish(trained.model_dir, models / "cartpole" / "2")
    write_selection(models / "cartpole", Selection(1, shadow=2))
    with running_service(models, folder / "log", "--workers", "1") as running:
        PolicyClient(running.url).wait_until_ready(60)
        yield running


@pytest.fixture(scope="module")
def keyed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that wants a key."""
    folder = tmp_path_factory.mktemp("keyed")
    with running_with_key(trained.models, folder, "k" * 32, "--workers", "1") as running:
        yield running


def live(page: Page) -> None:
    wait_for(page, "steps", "n >= 100")
    page.get_by_role("button", name="Hit pole right").click()
    expect(page.locator("#last-push")).to_contain_text("again after")


def many_carts(page: Page) -> None:
    page.get_by_label("400", exact=True).check()
    page.locator("#spread").select_option("0.2")
    wait_for(page, "steps", "n >= 10")


def beside(page: Page) -> None:
    page.get_by_label("Version beside it").select_option("version 2 (shadow)")
    expect(page.locator("#traffic")).to_contain_text("most probable action")


def warned(page: Page) -> None:
    page.get_by_label("400", exact=True).check()
    page.locator("#spread").select_option("5")
    expect(page.locator("#warnings")).to_contain_text("never saw")


def unavailable(page: Page) -> None:
    wait_for(page, "steps", "n >= 10")
    page.route("**/act", lambda route: route.abort())
    expect(page.locator("#unavailable")).to_contain_text("Retrying")


def missing(page: Page) -> None:
    expect(page.locator("#lead")).to_contain_text("which is not loaded")


def keyless(page: Page) -> None:
    expect(page.get_by_label("API key")).to_be_visible()


def unserved_live(page: Page) -> None:
    expect(page.locator("#unavailable")).to_contain_text("The models folder has no version")


def card(page: Page) -> None:
    expect(page.locator("#heat-section")).to_be_visible()
    settle(page)


def refused(page: Page) -> None:
    expect(page.locator("#unavailable")).to_contain_text("No version of refused is good")


def routes(page: Page) -> None:
    expect(page.get_by_role("heading", name="The HTTP interface")).to_be_visible()


def tried(page: Page) -> None:
    form = page.locator("#act")
    form.get_by_role("button", name="Send").click()
    expect(form.locator(".answer [role=status]")).to_contain_text("200 OK")


class State(NamedTuple):
    """A page of a service, and how it gets to the state that is looked at."""

    name: str
    service: str  # the fixture that has it
    path: str
    reach: Callable[[Page], None]


STATES = [
    State("live", "shadowed", "/", live),
    State("live-400-carts", "shadowed", "/", many_carts),
    State("live-side-by-side", "shadowed", "/", beside),
    State("live-warning", "shadowed", "/", warned),
    State("live-unavailable", "shadowed", "/", unavailable),
    State("live-missing-version", "shadowed", "/?version=9&seed=1", missing),
    State("live-key", "keyed", "/", keyless),
    State("live-no-model", "unserved", "/", unserved_live),
    State("card", "shadowed", "/models/cartpole", card),
    State("card-other-environment", "many", "/models/many", settle),
    State("card-refused", "unserved", "/models/refused", refused),
    State("interface", "shadowed", "/docs", routes),
    State("interface-tried", "shadowed", "/docs#act", tried),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_a_picture_of_each_state_is_kept(
    state: State,
    width: int,
    scheme: Literal["light", "dark"],
    request: pytest.FixtureRequest,
    visit: Visit,
) -> None:
    service = request.getfixturevalue(state.service)
    url = service.url if isinstance(service, Service) else service.service.url
    size = {"width": width, "height": SIZES[width]}
    page = visit(
        url + state.path, viewport=size, color_scheme=scheme, forgive="401|503|Failed to load"
    )
    state.reach(page)
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True, animations="disabled")))
    assert picture.width == width
    file = FOLDER / f"{state.name}-{width}-{scheme}.png"
    if os.environ.get("UPDATE_SCREENSHOTS") == "1":
        file.parent.mkdir(exist_ok=True)
        picture.quantize(COLORS).save(file, optimize=True)
    with Image.open(file) as kept:
        assert kept.width == width


def test_no_picture_is_kept_of_a_state_that_there_is_no_more() -> None:
    names = {
        f"{state.name}-{width}-{scheme}.png"
        for state in STATES
        for width in SIZES
        for scheme in ("light", "dark")
    }
    assert {file.name for file in FOLDER.iterdir()} == names
