"""Behind a real nginx, with and without a path prefix, and from pages of another origin."""

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import urllib3
from playwright.sync_api import Browser, expect
from playwright.sync_api import Error as PlaywrightError

from serving.client import PolicyClient
from tests.conftest import Service, Trained, running_service, wait_until
from tests.test_act import ROW
from tests.test_forwarding import PARENT, TRACE
from tests.tools import require_program
from tests.web.conftest import Visit

KEY = "a-key-that-is-long-enough"

# `/taken/` is taken away by the proxy, `/whole/` by the service, which has it as --root-path.
NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {service}; }}
    location /taken/ {{ proxy_pass {service}/; }}
    location /whole/ {{ proxy_pass {service}; }}
  }}
}}
"""
PREFIXES = ["", "/taken", "/whole"]


class Proxied(NamedTuple):
    url: str
    service: Service


@pytest.fixture(scope="module")
def other_origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with an empty page, which is none of the service's."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("<!doctype html><title>other</title>")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def proxied(
    trained: Trained, other_origin: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    require_program("nginx", "nginx")
    folder = tmp_path_factory.mktemp("proxied")
    options: tuple[str, ...] = ("--root-path", "/whole", "--trusted-proxies", "127.0.0.0/8,::1")
    options += ("--cors-origin", other_origin, "--log-requests", "all")
    with running_service(trained.models, folder / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        written = folder / "nginx.conf"
        written.write_text(NGINX.format(folder=folder, port=port, service=service.url))
        with subprocess.Popen(["nginx", "-c", str(written), "-p", str(folder)]) as nginx:
            url = f"http://127.0.0.1:{port}"
            PolicyClient(url).wait_until_ready(60)
            yield Proxied(url, service)
            nginx.terminate()


@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_route_answers_behind_a_prefix(proxied: Proxied, prefix: str) -> None:
    url = proxied.url + prefix
    with PolicyClient(url) as client:
        assert client.act([[0.0, 0.0, 0.2, 0.0]], deterministic=True).actions == [1]  # falls right
    for path in ("/health/ready", "/models/cartpole", "/v2/models/cartpole", "/openapi.json"):
        assert urllib3.request("GET", url + path).status == 200, path
    assert urllib3.request("GET", f"{url}/no/such").status == 404


@pytest.mark.parametrize(
    "prefix",
    ["", *(pytest.param(prefix, marks=pytest.mark.long) for prefix in PREFIXES[1:])],
)
def test_pages_and_their_links_work_behind_a_prefix(
    proxied: Proxied, visit: Visit, prefix: str
) -> None:
    url = proxied.url + prefix
    page = visit(f"{url}/")
    expect(page.locator("body")).to_contain_text(re.compile("cartpole", re.IGNORECASE))
    for start in ("/", "/docs", "/models/cartpole"):
        page = visit(url + start)
        links = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
        for link in {link.partition("#")[0] for link in links}:
            assert link.startswith(f"{url}/"), link
            assert urllib3.request("GET", link).status == 200, link


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_page_of_the_interface_sends_its_requests_behind_a_prefix(
    proxied: Proxied, visit: Visit, prefix: str
) -> None:
    url = proxied.url + prefix
    page = visit(f"{url}/docs#models")
    route = page.locator("#models")
    route.get_by_role("button", name="Send").click()
    expect(route.get_by_role("status")).to_contain_text("200 OK")
    expect(route.locator(".answer pre")).to_contain_text('"name": "cartpole"')
    expect(route.locator(".command")).to_have_text(f"curl -s {url}/models")


def requests_of(service: Service, request_id: str) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    return [line for line in lines if line.get("request_id") == request_id]


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_the_log_has_the_address_of_the_client_and_the_trace(proxied: Proxied, method: str) -> None:
    path, body = ("/act", {"observation": ROW}) if method == "POST" else ("/models", None)
    given = {"X-Request-ID": f"forwarded-{method}", "X-Forwarded-For": "198.51.100.7"}
    given["traceparent"] = f"00-{TRACE}-{PARENT}-01"
    answer = urllib3.request(method, f"{proxied.url}/taken{path}", json=body, headers=given)
    assert answer.status == 200
    wait_until(lambda: len(requests_of(proxied.service, given["X-Request-ID"])) == 1)
    (line,) = requests_of(proxied.service, given["X-Request-ID"])
    # nginx, a trusted proxy, was asked from 127.0.0.1, which is trusted too, with this header.
    assert line["remote"] == "198.51.100.7"
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", line["traceparent"])
    assert answer.headers["traceparent"] == line["traceparent"]
    assert line["path"] == path


ASK = """async url => {
    const answer = await fetch(url, {
        method: "POST",
        headers: {"Content-Type": "application/json", "X-Request-ID": "from-a-page"},
        body: JSON.stringify({observation: [0.01, -0.02, 0.03, 0.04], deterministic: true}),
    });
    return [answer.status, answer.headers.get("x-request-id")];
}"""


def test_pages_of_the_allowed_origin_may_ask_and_no_others(
    proxied: Proxied, service: Service, other_origin: str, browser: Browser
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(other_origin)
    assert page.evaluate(ASK, f"{proxied.url}/taken/act") == [200, "from-a-page"]
    # What went wrong can be read as well.
    assert page.evaluate(ASK, f"{proxied.url}/models/none/act") == [404, "from-a-page"]
    with pytest.raises(PlaywrightError, match="Failed to fetch"):  # it allows none
        page.evaluate(ASK, f"{service.url}/act")
    context.close()


def test_a_preflight_needs_no_key_and_allows_no_more_than_is_read(
    trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(KEY)
    options = ("--api-keys-file", str(tmp_path / "keys"), "--cors-origin", "https://example.org")
    with running_service(trained.models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        asked = {
            "Origin": "https://example.org",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        for path in ("/act", "/v1/models/cartpole:predict", "/v2/models/cartpole/infer"):
            answer = urllib3.request("OPTIONS", service.url + path, headers=asked)
            assert answer.status == 204, path
            assert answer.headers["Access-Control-Allow-Origin"] == "https://example.org"
            assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
            refused = urllib3.request("POST", service.url + path, json={}, headers=asked)
            assert refused.status == 401, path
            assert refused.headers["Access-Control-Allow-Origin"] == "https://example.org"
