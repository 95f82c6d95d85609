"""Logs: JSON for programs, text for people, a request id in both, and one line for each record."""

import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import urllib3

from serving.api.app import create_api
from serving.api.keys import Keys
from serving.client import PolicyClient
from serving.logs import JsonFormatter, TextFormatter
from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.conftest import ENVIRONMENT, ROOT, Service, Trained, wait_until
from tests.test_act import ROW

# What a client may try to write into a log: lines of its own, a terminal's commands, half a
# surrogate pair, and a separator that some readers take for a new line.
HOSTILE = "/x%0a2026-01-01%20INFO%20forged%0d%1b[2J%00%ed%a0%80%e2%80%a8end"


def get(service: Service, path: str, **headers: str) -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", service.url + path, headers=headers, retries=False)


def lines(service: Service, request_id: str) -> list[dict[str, Any]]:
    """The JSON lines about one request."""
    records = [json.loads(line) for line in service.log.read_text().splitlines()]
    return [record for record in records if record.get("request_id") == request_id]


def test_the_request_id_is_taken_returned_and_logged(service: Service) -> None:
    given = "order-66.a_B"
    answer = get(service, "/no/such/route?secret=1", **{"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given
    (line,) = lines(service, given)
    assert datetime_like(line.pop("time"))
    milliseconds = line.pop("milliseconds")
    assert 0 < milliseconds < 60_000
    assert line.pop("process") != service.process.pid
    assert line == {
        "level": "INFO",
        "logger": "serving.requests",
        "message": f"GET /no/such/route 404 in {milliseconds:.1f} ms, request {given}",
        "method": "GET",
        "path": "/no/such/route",
        "status": 404,
        "remote": "127.0.0.1",
        "request_id": given,
    }


def datetime_like(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", text) is not None


@pytest.mark.parametrize(
    "given", ["", "x" * 129, "a b", "a\tb", "<script>", "id;id", "\xe4\xf6", '"', "%0a", "a,b"]
)
def test_an_id_that_is_no_plain_word_is_replaced(service: Service, given: str) -> None:
    own = get(service, "/health/live", **{"X-Request-ID": given}).headers["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f]{16}", own)


def test_ids_of_their_own_are_different(service: Service) -> None:
    answers = [
        urllib3.request("POST", f"{service.url}/act", json={"observation": ROW}) for _ in range(20)
    ]
    answers += [get(service, "/models") for _ in range(20)]
    assert len({answer.headers["X-Request-ID"] for answer in answers}) == 40


def test_an_id_with_a_line_break_cannot_make_a_header_or_a_line(service: Service) -> None:
    address = urlsplit(service.url)
    for sent in (b"a\nX-Evil: 1", b"a\r X-Evil: 1", b"a\0b", b"a\x1b[2J"):
        with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
            connection.sendall(
                b"GET /no/such HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                b"X-Request-ID: " + sent + b"\r\n\r\n"
            )
            answer = connection.makefile("rb").read()
        head = answer.partition(b"\r\n\r\n")[0]
        assert head.startswith((b"HTTP/1.1 404 ", b"HTTP/1.1 400 ")), sent
        assert b"Evil" not in head
    for line in service.log.read_bytes().splitlines():
        json.loads(line)


def test_a_hostile_path_stays_within_its_line_of_json(service: Service) -> None:
    get(service, HOSTILE, **{"X-Request-ID": "hostile-json"})
    (found,) = lines(service, "hostile-json")
    assert found["path"].startswith("/x\n2026-01-01 INFO forged\r\x1b[2J\x00")
    for line in service.log.read_bytes().splitlines():
        json.loads(line)


def test_answers_that_are_no_error_are_not_logged_unless_asked_for(service: Service) -> None:
    get(service, "/health/live", **{"X-Request-ID": "not-logged"})
    get(service, "/no/such", **{"X-Request-ID": "logged"})
    assert lines(service, "logged")
    assert not lines(service, "not-logged")


class OnTerminal(NamedTuple):
    service: Service
    seen: list[str]  # what the terminal was sent, in pieces


@pytest.fixture(scope="module")
def on_terminal(trained: Trained) -> Iterator[OnTerminal]:
    """A service whose standard error is a terminal, and that logs every request."""
    ours, theirs = os.openpty()
    seen: list[str] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 65_536):
                seen.append(piece.decode())

    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "serving", "run", "--models", str(trained.models)),
            *("--port", "0", "--workers", "1", "--log-requests", "all"),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    reader = threading.Thread(target=read)
    reader.start()
    with process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            PolicyClient(url).wait_until_ready(60)
            yield OnTerminal(Service(url, process, Path()), seen)
        finally:
            process.terminate()
    reader.join(timeout=60)
    os.close(ours)


LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) [^\n]+")


def test_on_a_terminal_lines_are_for_people(on_terminal: OnTerminal) -> None:
    answer = get(on_terminal.service, "/models", **{"X-Request-ID": "for-people"})
    assert answer.status == 200
    wait_until(lambda: "for-people" in "".join(on_terminal.seen))
    shown = "".join(on_terminal.seen).replace("\r\n", "\n").strip().split("\n")
    assert all(LINE.fullmatch(line) for line in shown), shown
    (line,) = [line for line in shown if "for-people" in line]
    assert re.search(r" INFO GET /models 200 in \d+\.\d ms, request for-people$", line)


def test_a_hostile_path_stays_within_its_line_of_text(on_terminal: OnTerminal) -> None:
    get(on_terminal.service, HOSTILE, **{"X-Request-ID": "hostile-text"})
    wait_until(lambda: "hostile-text" in "".join(on_terminal.seen))
    shown = "".join(on_terminal.seen).replace("\r\n", "\n")
    (line,) = [line for line in shown.split("\n") if "hostile-text" in line]
    assert LINE.fullmatch(line)
    assert r"GET /x\n2026-01-01 INFO forged\r\x1b[2J\x00" in line
    assert r"\u2028end 404 in" in line
    assert "\x1b" not in shown
    assert "\n2026-01-01 INFO forged" not in shown


def record(message: str, exception: Exception | None = None, **extra: Any) -> logging.LogRecord:
    info = None if exception is None else (type(exception), exception, None)
    made = logging.LogRecord("name", logging.ERROR, "file", 1, message, (), info)
    vars(made).update(extra)
    return made


def test_an_exception_cannot_forge_a_line_either() -> None:
    text = TextFormatter().format(record("it failed", ValueError("a\n2026 INFO forged\x1b")))
    first, *others = text.split("\n")
    assert LINE.fullmatch(first)
    assert [line[:4] for line in others] == ["    "] * 2
    assert {character for character in text if not character.isprintable()} == {"\n"}
    line = json.loads(JsonFormatter().format(record("it failed", ValueError("a\nb"))))
    assert line["exception"] == "ValueError: a\nb"


def test_any_value_can_be_logged_as_json() -> None:
    made = record("half a pair \ud800", path=Path("/x"), size=2**70, number=float("nan"))
    text = JsonFormatter().format(made)
    assert text.isascii()
    line = json.loads(text)
    assert line["message"] == "half a pair \ud800"
    assert line["path"] == "/x"
    assert line["size"] == 2**70


def test_an_answer_that_failed_is_in_the_log_under_its_request(
    caplog: pytest.LogCaptureFixture, trials: Trials
) -> None:
    settings, metrics = Settings(), Metrics()
    app = create_api(settings, Repository(settings, metrics, trials), metrics, Keys([])).flask

    @app.get("/fails")
    def fails() -> str:
        raise ZeroDivisionError("in the handler")

    answer = app.test_client().get("/fails", headers={"X-Request-ID": "the-one"})
    assert answer.status_code == 500
    assert "in the handler" not in answer.text
    (failed,) = [one for one in caplog.records if one.exc_info]
    assert failed.getMessage() == "request the-one failed"
    assert "in the handler" in caplog.text


def test_the_settings_are_logged_at_the_start_and_no_others(service: Service) -> None:
    first = json.loads(service.log.read_text().splitlines()[0])
    for setting, value in [("workers", "2"), ("port", "0"), ("request_timeout", "30.0")]:
        assert f"'{setting}': '{value}'" in first["message"]
    assert first["message"].endswith("; 0 API keys")


PRINTS = """
import sys, threading, traceback, warnings
from serving.logs import set_up_logs
set_up_logs(sys.argv[1])
warnings.warn("a warning")
for target in (lambda: 1 / 0, sys.exit):
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
class Unraisable:
    def __del__(self):
        raise LookupError("in a destructor")
Unraisable()
try:
    raise ValueError("printed")
except ValueError:
    traceback.print_exc()
print("an", "unfinished line", file=sys.stderr, end="")
print(" is finished", file=sys.stderr)
raise RuntimeError("nobody catches this")
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_all_that_python_code_writes_to_standard_error_is_logged(log_format: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PRINTS, log_format], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 1
    lines = finished.stderr.splitlines()
    if log_format == "json":
        records = [json.loads(line) for line in lines]
        uncaught = [record["exception"] for record in records if "exception" in record]
        assert [text.splitlines()[-1] for text in uncaught] == [
            "ZeroDivisionError: division by zero",
            "LookupError: in a destructor",
            "RuntimeError: nobody catches this",
        ]
        lines = [record["message"] for record in records]
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\d |    ", line) for line in lines)
    for text in ("a warning", "ValueError: printed", "an unfinished line is finished"):
        assert [line for line in lines if text in line]


def test_a_log_that_cannot_be_written_does_not_stop_anything() -> None:
    with open("/dev/full", "w") as full:
        finished = subprocess.run(
            [sys.executable, "-c", PRINTS.rpartition("raise")[0], "json"], cwd=ROOT, stderr=full
        )
    assert finished.returncode == 0


def test_what_gunicorn_prints_when_it_cannot_start_a_worker_is_json(tmp_path: Path) -> None:
    code = """
from gunicorn.errors import AppImportError
from serving.cli import main
from serving.server.master import Server
def load(self): raise AppImportError("no application")
Server.load = load
main()
"""
    (tmp_path / "models").mkdir()
    finished = subprocess.run(
        [sys.executable, "-c", code, *("run", "--models", "models", "--port", "0")],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    messages = [json.loads(line)["message"] for line in finished.stderr.splitlines()]
    assert "no application" in messages
