"""Which files the browser can get, and with which headers."""

import re

import pytest
import urllib3

from tests.conftest import ROOT, Service

WEB = ROOT / "serving" / "web"
PARTS = sorted(path.name for path in WEB.iterdir() if path.suffix != ".html")

http = urllib3.PoolManager(retries=False)


def test_the_policy_allows_nothing_inline_and_nothing_from_elsewhere(service: Service) -> None:
    for path in ("/", "/models/cartpole", "/docs", "/web/app.js"):
        answer = http.request("GET", service.url + path, headers={"Accept": "text/html"})
        policy = dict(
            directive.strip().split(" ", 1)
            for directive in answer.headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        for kind in ("script-src", "style-src", "connect-src"):
            assert policy[kind] == "'self'"
        assert policy["img-src"] == "'self' blob:"
        for kind in ("base-uri", "form-action", "frame-ancestors"):
            assert policy[kind] == "'none'"


@pytest.mark.parametrize("path", sorted(WEB.iterdir()), ids=lambda path: path.name)
def test_no_file_names_another_host_or_has_inline_styles(path: object) -> None:
    assert hasattr(path, "read_text")
    text = path.read_text()
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\sstyle=|innerHTML|setAttribute\(.style|\son\w+=", text)


def test_every_file_that_a_page_names_exists() -> None:
    for path in WEB.glob("*.html"):
        for name in re.findall(r"web/([\w.-]+)", path.read_text()):
            assert name in PARTS
    for path in WEB.glob("*.js"):
        for name in re.findall(r'from "\./([\w.-]+)"', path.read_text()):
            assert name in PARTS


@pytest.mark.parametrize("name", PARTS)
def test_a_file_has_its_type_and_is_revalidated(name: str, service: Service) -> None:
    address = f"{service.url}/web/{name}"
    first = http.request("GET", address)
    types = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert first.status == 200
    assert first.headers["Content-Type"].split(";")[0] == types[name.split(".")[-1]]
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert first.headers["Cache-Control"] == "no-cache"
    assert first.data == (WEB / name).read_bytes()
    again = http.request("GET", address, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.data) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/index.html",
        "/web/missing.js",
        "/web/../app.py",
        "/web/..%2fapp.py",
        "/web/%2e%2e/app.py",
        "/web/%00",
        "/web//etc/passwd",
    ],
)
def test_no_other_path_serves_a_file(path: str, service: Service) -> None:
    answer = http.request("GET", service.url + path, redirect=False)
    assert answer.status in (404, 308)  # 308: redirected to the path with one slash
    assert b"import" not in answer.data


def test_the_page_of_an_unknown_model_is_not_found(service: Service) -> None:
    headers = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    assert http.request("GET", f"{service.url}/models/none", headers=headers).status == 404
