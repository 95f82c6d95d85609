"""The serving benchmark: what it parses, compares and prints, and that no process is left."""

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

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks.serving_comparison import Plan, main
from benchmarks.serving_load import (
    Body,
    Load,
    LoadError,
    binary_body,
    is_complete,
    json_body,
    paced_load,
    parse_wrk,
    percentiles_ms,
    send,
)
from benchmarks.serving_report import Measurement, Started, Tail, ratios, report
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


def test_a_failure_of_wrk_is_reported() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        parse_wrk("", "unable to connect to 127.0.0.1:1\n")


def test_a_response_is_complete_when_its_content_has_the_content_length() -> None:
    response = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-A: b\r\n\r\nabc"
    assert [is_complete(response[:end]) for end in (10, len(response) - 1, len(response))] == [
        *(False, False, True),
    ]
    assert is_complete(response.replace(b"Content-Length", b"content-length"))


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0", b"HTTP/1.1 200 OK"]
)
def test_a_response_with_another_status_or_without_length_is_an_error(head: bytes) -> None:
    with pytest.raises(LoadError, match=head.splitlines()[0].decode()):
        is_complete(head + b"\r\n\r\n")


def test_percentiles_are_in_milliseconds() -> None:
    assert percentiles_ms([0.001]) == (1.0, 1.0)
    assert percentiles_ms([number / 1000 for number in range(101)]) == pytest.approx((50.0, 99.0))


@contextmanager
def answering(status: int) -> Iterator[tuple[str, list[bytes]]]:
    """A service that answers with one status; yields its URL, and the bodies it receives."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet per response

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


def test_a_constant_rate_sends_the_right_number_of_requests_and_none_early() -> None:
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


def test_with_both_protocols_the_service_answers_every_row(trained: Trained) -> None:
    with running("ours", trained.models, workers=1) as service:
        for rows in (1, 5):
            for body in (json_body(rows), binary_body(rows)):
                service.wait_until_ready(body, workers=1)
                assert service.check(body, rows) > 0
                with pytest.raises(LoadError, match=f"the response has {rows} actions for 9 rows"):
                    service.check(body, 9)
        assert service.cpu_seconds() > 0.1


def test_the_noop_app_answers_in_the_shape_of_the_service_under_its_gunicorn(
    trained: Trained,
) -> None:
    with running("noop", trained.models, workers=1) as service:
        start = service.wait_until_ready(json_body(1), workers=1)
        _, content = send(service.url, json_body(3))
        assert service.pss_mb() > 0
    assert 0 < start.listening_seconds < start.ready_seconds
    answer = msgspec.json.decode(content, type=ActResponse)
    assert answer.model.name == "noop"
    assert len(answer.actions) == len(answer.action_logits) == len(answer.state_values) == 3
    assert marked(service.mark) == []


def measured(
    contender: str, number: int, rate: float, *, workers: int = 2, rows: int = 1
) -> Measurement:
    return Measurement(
        contender=contender,
        round=number,
        workers=workers,
        protocol="json",
        rows=rows,
        connections=16,
        requests_per_second=rate,
        rows_per_second=rate * rows,
        p50_ms=1.0,
        p99_ms=2.0,
        requests_per_cpu_second=rate / workers**2,
        pss_mb=100.0,
    )


def test_ratios_compare_measurements_of_the_same_round_and_cell() -> None:
    records = [
        *(measured("noop", 2, 4000.0), measured("ours", 1, 1000.0), measured("noop", 1, 2000.0)),
        *(measured("ours", 2, 3000.0), measured("ours", 1, 9.0, rows=1024)),
        *(measured("noop", 1, 10.0, rows=1024), measured("ours", 1, 500.0, workers=1)),
    ]
    by_cell = ratios(records, ("ours", 2), ("noop", 2))
    assert by_cell == {("json", 1, 16): [0.5, 0.75], ("json", 1024, 16): [0.9]}
    with pytest.raises(KeyError):
        ratios(records, ("ours", 2), ("ours", 1))  # round 2 is missing


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_report_shows_medians_ranges_and_every_ratio() -> None:
    records = [
        *(measured("ours", number, rate) for number, rate in enumerate((900.0, 1e3, 2e3), 1)),
        *(measured("noop", number, 1000.0) for number in (1, 2, 3)),
    ]
    assert lines(report(None, records, ["noop", "ours"])) == [
        "protocol rows connections median (min..max) workers"
        " requests/s rows/s p50 ms p99 ms requests/CPU s PSS MB",
        "json 1 16 no-op Flask 2 1,000.0 (1,000.0..1,000.0) 1,000 (1,000..1,000)"
        " 1.00 (1.00..1.00) 2.00 (2.00..2.00) 250 (250..250) 100 (100..100)",
        "json 1 16 ours 2 1,000.0 (900.0..2,000.0) 1,000 (900..2,000)"
        " 1.00 (1.00..1.00) 2.00 (2.00..2.00) 250 (225..500) 100 (100..100)",
        "",
        "protocol rows connections throughput round 1 round 2 round 3 median",
        "json 1 16 ours / no-op Flask 0.90 1.00 2.00 1.00",
    ]


def test_a_report_without_ours_has_no_ratios() -> None:
    assert len(lines(report(None, [measured("noop", 1, 1.0)], ["noop"]))) == 2


def test_the_report_of_workers_compares_two_with_one() -> None:
    records = [measured("ours", 1, 500.0, workers=1), measured("ours", 1, 900.0)]
    assert lines(report("workers", records, ["ours"]))[-2:] == [
        "json 1 16 ours, 2 workers / 1 1.80 1.80",
        "json 1 16 ours, 2 workers / 1, per CPU s 0.45 0.45",
    ]


def test_the_report_of_tails() -> None:
    record = Tail(
        contender="ours",
        round=1,
        workers=2,
        protocol="json",
        rows=1,
        connections=16,
        requests_per_second=500.0,
        p50_ms=1.0,
        p99_ms=3.5,
        ratio=3.5,
        late_p99_ms=0.1,
    )
    assert lines(report("tail", [record], ["ours"]))[1] == (
        "json 1 16 ours 2 500.0 (500.0..500.0) 1.00 (1.00..1.00) 3.50 (3.50..3.50)"
        " 3.5 (3.5..3.5) 0.10 (0.10..0.10)"
    )


def test_the_report_of_starts_has_the_memory_of_each_additional_worker() -> None:
    records = [
        Started(
            round=number,
            contender="ours",
            workers=workers,
            listening_seconds=2.0,
            ready_seconds=2.5,
            pss_mb=megabytes,
        )
        for number, workers, megabytes in [(1, 1, 300.0), (1, 4, 480.0), (2, 4, 510.0), (2, 1, 300)]
    ]
    _, one, four = lines(report("start", records, ["ours"]))
    assert one.startswith("ours 1 2.00 (2.00..2.00) 2.50 (2.50..2.50) 0.50 (0.50..0.50)")
    assert one.endswith("300 (300..300) -")
    assert four.endswith("495 (480..510) 65 (60..70)")


def test_every_contender_runs_in_each_round_and_the_order_alternates() -> None:
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


def test_stopping_leaves_no_process_not_even_one_that_left_the_session() -> None:
    mark = secrets.token_hex(8)
    # The first process ends on SIGTERM. Its child ignores SIGTERM and has its own session.
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
    ],
)
def test_an_invalid_list_is_reported_before_anything_is_started(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert arguments[-1].split(",")[-1] in result.output
