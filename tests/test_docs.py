"""The documents: their links, and the programs, settings and cells in them."""

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serving.client import PolicyClient
from serving.settings import Settings
from tests.conftest import ENVIRONMENT, ROOT, Trained, running_with_key
from tests.tools import require_program

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
KEY = "a-key-of-a-test-of-the-documents"
UNIT = ROOT / "deploy" / "actor-critic-serve.service"


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(page.read_text()), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_prose_is_wrapped(page: Path) -> None:
    for line in without_code(page.read_text()).splitlines():
        is_prose = not line.startswith(("|", "    ", "![")) and "](" not in line
        assert len(line) <= 100 or not is_prose, line


def test_the_index_has_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index


@pytest.fixture(scope="module")
def keyed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_with_key(trained.models, tmp_path_factory.mktemp("keyed"), KEY) as service:
        yield service.url


def blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "clients.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def answer(url: str, key: str, *command: str) -> subprocess.CompletedProcess[str]:
    variables = {"SERVING_URL": url, "SERVING_API_KEY": key, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=ENVIRONMENT | variables, capture_output=True, text=True, timeout=60
    )


def expected(url: str) -> int:
    with PolicyClient(url, api_key=KEY) as client:
        (action,) = client.act([[0.01, -0.02, 0.03, 0.04]], deterministic=True).actions
    return action


def expect_the_action_and_refusals(url: str, *command: str) -> None:
    answered = answer(url, KEY, *command)
    assert answered.stdout.strip() == str(expected(url)), answered.stderr
    refused = answer(url, "not-the-key", *command)
    assert refused.returncode != 0
    assert "this service does not know the API key" in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("program", blocks("python"), ids=["PolicyClient", "urllib"])
def test_the_python_clients_work(program: str, keyed: str) -> None:
    expect_the_action_and_refusals(keyed, sys.executable, "-c", program)


class BusyOnce(BaseHTTPRequestHandler):
    """Answers as a service that is busy, and then as one that decides."""

    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        BusyOnce.requests += 1
        is_busy = BusyOnce.requests % 2 == 1
        content = b'{"detail": "busy"}' if is_busy else b'{"actions": [7]}'
        self.send_response(503 if is_busy else 200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture
def busy_once() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), BusyOnce) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_busy_service_is_asked_again(busy_once: str) -> None:
    _, program = blocks("python")
    answered = answer(busy_once, KEY, sys.executable, "-c", program)
    assert answered.stdout.strip() == "7", answered.stderr


def test_the_javascript_client_asks_a_busy_service_again(busy_once: str, tmp_path: Path) -> None:
    require_program("node", "nodejs")
    (tmp_path / "ask.mjs").write_text(blocks("js")[0])
    answered = answer(busy_once, KEY, "node", str(tmp_path / "ask.mjs"))
    assert answered.stdout.strip() == "7", answered.stderr


def test_without_a_service_the_client_of_the_standard_library_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        refused = answer(url, KEY, sys.executable, "-c", blocks("python")[1])
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1


def test_the_curl_command_works(keyed: str) -> None:
    (command,) = blocks("sh")
    answered = answer(keyed, KEY, "sh", "-c", command)
    assert json.loads(answered.stdout)["actions"] == [expected(keyed)]
    assert answer(keyed, "not-the-key", "sh", "-c", command).returncode == 22  # of curl's --fail


def test_the_javascript_client_works(keyed: str, tmp_path: Path) -> None:
    require_program("node", "nodejs")
    (program,) = blocks("js")
    (tmp_path / "ask.mjs").write_text(program)
    expect_the_action_and_refusals(keyed, "node", str(tmp_path / "ask.mjs"))


@pytest.mark.peers
def test_the_go_client_works(keyed: str, tmp_path: Path) -> None:
    require_program("go", "golang-go")
    (program,) = blocks("go")
    (tmp_path / "main.go").write_text(program)
    built = subprocess.run(
        ["go", "build", "-o", "ask", "main.go"],
        cwd=tmp_path,
        env=os.environ | {"GOCACHE": str(tmp_path / "cache"), "GO111MODULE": "off"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    expect_the_action_and_refusals(keyed, str(tmp_path / "ask"))


@pytest.mark.long
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    notebook = json.loads((ROOT / "notebooks" / "cartpole.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] for cell in cells)
    (tmp_path / "cells.py").write_text("\n\n".join("".join(cell["source"]) for cell in cells))
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "cells.py")],
        cwd=ROOT / "notebooks",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert "solved: True" in finished.stdout
    assert "replayed" in finished.stdout


def test_the_figure_of_the_method_is_drawn_by_its_command(trained: Trained, tmp_path: Path) -> None:
    picture = tmp_path / "method.png"
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.method_figures", str(trained.model_dir), str(picture)],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_unit_sets_what_the_service_knows() -> None:
    unit = UNIT.read_text()
    variables = {f"SERVING_{one.name.upper()}" for one in dataclasses.fields(Settings)}
    set_here = set(re.findall(r"SERVING_\w+(?==)", unit))
    assert set_here == {"SERVING_MODELS"} <= variables
    (command,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    assert command.split()[1:] == ["-m", "serving", "run"]
    # docs/production.md uses the same places.
    page = (ROOT / "docs" / "production.md").read_text()
    for path in re.findall(r"(?:/opt|/srv|/etc)/actor-critic[\w/.-]*", unit):
        assert path.split("/.venv")[0] in page
    # For two workers of eight threads: docs/operations.md, "Memory and disk".
    (tasks,) = re.findall(r"^TasksMax=(\d+)$", unit, re.MULTILINE)
    assert int(tasks) >= 2 * (8 + 6 + 16) + 7  # on up to 32 cores
    # A worker takes up to 900 connections, and its own files.
    (files,) = re.findall(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)
    assert int(files) > 940


def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    require_program("systemd-analyze", "systemd")
    # With a program that is there: systemd looks for it.
    unit = UNIT.read_text().replace("/opt/actor-critic/.venv/bin/python", sys.executable)
    (tmp_path / UNIT.name).write_text(unit)
    finished = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / UNIT.name)], capture_output=True, text=True
    )
    assert (finished.returncode, finished.stderr) == (0, "")
