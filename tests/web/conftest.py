"""A real Chromium; pages must log no error and send no request to another host."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

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
