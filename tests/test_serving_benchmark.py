"""The benchmark of serving: what it reads, compares and prints, and that it leaves nothing."""

import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from benchmarks import recording, scale_serving, serving_comparison, shadow_load
from benchmarks.serving_comparison import Plan, main, trained_models
from benchmarks.serving_load import (
    BODIES,
    Body,
    Load,
    LoadError,
    ask,
    is_whole,
    json_body,
    paced_load,
    parse_wrk,
    percentiles_ms,
)
from benchmarks.serving_services import MARK, marked, newest_version, running, stop
from serving.schemas import ActResponse
from serving.settings import Settings
from tests.conftest import Trained

NO_ERRORS = {"status": 0, "connect": 0, "read": 0, "write": 0, "timeout": 0}
WRK = {
    "requests": 1000,
    "duration_us": 2_000_000,
    "p50_us": 1500,
    "p99_us": 4250,
    "errors": NO_ERRORS,
}


def test_the_last_line_of_wrk_is_read() -> None:
    output = f"Running 2s test\n  1000 requests in 2s\n{json.dumps(WRK)}\n"
    assert parse_wrk(output, "") == Load(requests=1000, seconds=2.0, p50_ms=1.5, p99_ms=4.25)


@pytest.mark.parametrize("kind", list(NO_ERRORS))
def test_one_failed_request_of_any_kind_is_an_error(kind: str) -> None:
    seen = WRK | {"errors": NO_ERRORS | {kind: 1}}
    with pytest.raises(LoadError, match=f"{kind}.*1"):
        parse_wrk(json.dumps(seen), "")


def test_what_wrk_says_of_its_own_failure_is_told() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        parse_wrk("", "unable to connect to 127.0.0.1:1\n")


def test_an_answer_is_whole_when_its_content_has_the_length_that_its_head_says() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc"
    assert [is_whole(answer[:end]) for end in (10, len(answer) - 1, len(answer))] == [
        *(False, False, True),
    ]
    assert is_whole(answer.replace(b"Content-Length", b"content-length"))


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0", b"HTTP/1.1 200 OK"]
)
def test_an_answer_of_another_status_or_without_length_is_an_error(head: bytes) -> None:
    with pytest.raises(LoadError, match=head.splitlines()[0].decode()):
        is_whole(head + b"\r\n\r\n")


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles_ms([0.001]) == (1.0, 1.0)
    assert percentiles_ms([number / 1000 for number in range(101)]) == pytest.approx((50.0, 99.0))


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[bytes]]]:
    """A service that gives one status to all; its address, and the bodies that it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", bodies
        finally:
            server.shutdown()
            thread.join()


def test_a_constant_rate_sends_as_many_requests_as_it_says_and_none_early() -> None:
    with answering(200) as (url, bodies):
        started = time.perf_counter()
        seen = paced_load(
            url,
            Body({"X-A": "b"}, b"[1]"),
            rate=200,
            seconds=0.25,
            connections=3,
        )
        assert time.perf_counter() - started >= 49 / 200
    assert bodies == [b"[1]"] * 50
    assert 0 < seen.p50_ms <= seen.p99_ms
    assert seen.late_p99_ms >= 0


def test_a_constant_rate_ends_at_the_first_error() -> None:
    with answering(503) as (url, _), pytest.raises(LoadError, match="503"):
        paced_load(
            url,
            Body({"X-A": "b"}, b"[1]"),
            rate=200,
            seconds=0.25,
            connections=3,
        )


def test_the_largest_request_is_within_the_limits_of_the_service() -> None:
    body = json_body(65_536)
    assert len(json.loads(body.content)["observations"]) == Settings().max_rows == 65_536
    assert len(body.content) < Settings().max_body_bytes


def test_every_protocol_gets_a_decision_a_row_from_the_service(trained: Trained) -> None:
    with running("ours", trained.models, workers=1) as service:
        for rows in (1, 5):
            for make_body in BODIES.values():
                body = make_body(rows)
                service.wait_until_ready(body, workers=1)
                assert service.check(body, rows) > 0
                with pytest.raises(LoadError, match=f"answered with {rows} actions to 9 rows"):
                    service.check(body, 9)
        assert service.cpu_seconds() > 0.1


def test_the_noop_app_answers_in_the_shape_of_the_service_under_its_gunicorn(
    trained: Trained,
) -> None:
    with running("noop", trained.models, workers=1) as service:
        start = service.wait_until_ready(json_body(1), workers=1)
        _, content = ask(service.url, json_body(3))
        assert service.pss_mb() > 0
    assert 0 < start.listening_seconds < start.ready_seconds
    answer = msgspec.json.decode(content, type=ActResponse)
    assert answer.model.name == "noop"
    assert len(answer.actions) == len(answer.action_logits) == len(answer.state_values) == 3
    assert marked(service.mark) == []


def test_every_contender_has_its_turn_each_round_and_the_order_alternates() -> None:
    plan = Plan(models=Path(), contenders=["noop", "ours"], cells=[], rounds=3, seconds=1)
    turns = [(turn.round, turn.contender, turn.workers) for turn in plan.turns([1, 2])]
    forward = [("noop", 1), ("noop", 2), ("ours", 1), ("ours", 2)]
    assert turns == [
        *((1, *side) for side in forward),
        *((2, *side) for side in reversed(forward)),
        *((3, *side) for side in forward),
    ]


def test_the_newest_version_is_the_largest_number(tmp_path: Path) -> None:
    for name in ("9", "10", "10.partial"):
        (tmp_path / "cartpole" / name).mkdir(parents=True)
    assert newest_version(tmp_path).name == "10"
    with pytest.raises(LoadError, match="cartpole"):
        newest_version(tmp_path / "nothing")


def test_stopping_leaves_no_process_not_even_one_that_has_left() -> None:
    mark = secrets.token_hex(8)
    # The first process ends on SIGTERM. Its child ignores it, and is in a session of its own.
    child = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(flush=True)\n"
        "time.sleep(600)"
    )
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)\n"
        "time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], env={MARK: mark}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the child is up
        assert len(marked(mark)) == 2
        stop(process, mark)
        assert marked(mark) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--rows", "1,x"],
        ["--connections", "0"],
        ["--contenders", "ours,his"],
        ["--protocol", "binary", "--contenders", "ours,fastapi"],
        ["--protocol", "act,infer", "--contenders", "ours,triton"],
        ["--protocol", "act,http"],
    ],
)
def test_a_wrong_list_is_told_before_anything_is_started(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert arguments[-1].split(",")[-1] in result.output


def test_a_contender_that_is_not_to_be_found_is_left_out_with_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUN", "/bin/true")
    monkeypatch.delenv("BUN_SERVER", raising=False)
    # The list of rows is wrong, so that nothing is started.
    result = CliRunner().invoke(main, ["--contenders", "ours,bun", "--rows", "x"])
    assert "without Bun: BUN_SERVER does not say where it is\n" in result.output


def test_where_every_contender_is_left_out_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BUN", raising=False)
    result = CliRunner().invoke(main, ["--contenders", "bun"])
    assert result.exit_code == 2
    assert result.output.endswith("Error: no contender is left\n")


def test_a_training_that_was_ended_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = tmp_path / "models" / "cartpole" / "1"
    version.parent.mkdir(parents=True)

    def train(*_: Any, **__: Any) -> None:
        version.mkdir()
        (version / "saved_model.pb").touch()

    monkeypatch.setattr(serving_comparison, "RESULTS", tmp_path)
    monkeypatch.setattr("subprocess.run", train)
    assert trained_models() == tmp_path / "models"
    assert version.exists()
    assert trained_models() == tmp_path / "models"  # a second training would fail


@pytest.mark.parametrize("command", [recording.main, scale_serving.main, shadow_load.main])
def test_without_wrk_one_line_says_what_to_install(
    command: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(command, ["--models", str(tmp_path)])
    assert result.exit_code == 1
    assert result.output == "Error: wrk is missing; on Debian: apt-get install wrk\n"
