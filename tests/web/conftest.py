"""A real Chromium; pages must log no error and send no request to another host."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it carries none
from playwright.sync_api import Browser, Page, expect, sync_playwright

from serving.client import PolicyClient
from tests.artefacts import publish, unsolve
from tests.conftest import ENVIRONMENT, ROOT, Service, Trained, run, running_service
from tests.environments.many import SIZE
from tests.tools import require_program

CHROMIUM = Path("/usr/bin/chromium")  # Debian's package
DEADLINE_MS = 60_000

Visit = Callable[..., Page]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """One browser for this package: its event loop would disturb the tests of others."""
    require_program(str(CHROMIUM), "chromium")
    expect.set_options(timeout=DEADLINE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",  # it does not run as root otherwise
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Open a page: `visit(url, forgive=regex of console errors, first=script, **options)`."""
    problems: list[str] = []
    contexts = []

    def open_page(
        url: str, *, forgive: str | None = None, first: str | None = None, **options: Any
    ) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        origin = "/".join(url.split("/")[:3])

        def on_console(kind: str, text: str) -> None:
            if kind in ("error", "warning") and not (forgive and re.search(forgive, text)):
                problems.append(f"{kind}: {text}")

        page.on("console", lambda message: on_console(message.type, message.text))
        page.on("pageerror", lambda error: problems.append(f"uncaught: {error}"))
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((f"{origin}/", f"blob:{origin}/"))
                else problems.append(f"requested {request.url}")
            ),
        )
        if first is not None:
            page.add_init_script(first)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        for page in context.pages:
            page.unroute_all(behavior="ignoreErrors")
        context.close()
    assert problems == []


def serious_violations(page: Page) -> list[tuple[str, list[str]]]:
    """What axe-core finds on a page that is serious or critical, with the elements."""
    violations: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        (violation["id"], [node["html"] for node in violation["nodes"]])
        for violation in violations
        if violation["impact"] in ("serious", "critical")
    ]


MANY_NAMES = ["tiny", "constant", "level", "huge", *(f"other_{i}" for i in range(4, SIZE))]


class Many(NamedTuple):
    url: str  # of the card page
    service: Service
    card: dict[str, Any]


@pytest.fixture(scope="package")
def many(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    """A service of CartPole, and of a policy with many numbers and three actions."""
    folder = tmp_path_factory.mktemp("many")
    models = shutil.copytree(trained.models, folder / "models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRONMENT, "PYTHONPATH", f"{ROOT / 'tests' / 'environments'}")
        finished = run(
            *("training", "train", "--env-id", "many:Many-v0", "--name", "many"),
            *("--action-names", "low,medium,high", "--observation-names", ",".join(MANY_NAMES)),
            *("--max-env-steps", "30000", "--evaluation-episodes", "50"),
            *("--models", str(models), "--run-dir", str(folder / "run")),
        )
    assert finished.returncode == 0, finished.stderr
    card = json.loads((models / "many" / "1" / "assets.extra" / "policy.json").read_text())
    with running_service(models, folder / "log") as service, PolicyClient(service.url) as client:
        client.wait_until_ready(60)
        yield Many(f"{service.url}/models/many", service, card)


def wait_until_live(url: str) -> None:
    """Return as soon as the service is live."""
    tries = urllib3.Retry(600, backoff_factor=0.1, backoff_max=0.1)
    assert urllib3.request("GET", f"{url}/health/live", retries=tries).status == 200


class Unserved(NamedTuple):
    service: Service
    models: Path


def select(folder: Path, serve: int | str) -> None:
    """Select a version as an operator does, with a file that a command writes."""
    (folder / "serve.json").write_text(json.dumps({"serve": serve}))


@pytest.fixture(scope="module")
def unserved(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unserved]:
    """A service of models none of which is served, each for another reason."""
    models = tmp_path_factory.mktemp("unserved") / "models"
    for name in ("refused", "unloaded", "missing", "pinned", "empty"):
        (models / name).mkdir(parents=True)
    publish(trained.model_dir, models / "refused" / "1")
    (models / "refused" / "1" / "fingerprint.pb").write_bytes(b"changed")
    publish(trained.model_dir, models / "refused" / "2", unsolve)
    publish(trained.model_dir, models / "unloaded" / "1")
    select(models / "unloaded", "nothing")
    publish(trained.model_dir, models / "missing" / "1")
    select(models / "missing", 7)
    publish(trained.model_dir, models / "pinned" / "1", unsolve)
    publish(trained.model_dir, models / "pinned" / "2")
    select(models / "pinned", 1)
    with running_service(models, models.parent / "log") as service:
        wait_until_live(service.url)
        yield Unserved(service, models)
