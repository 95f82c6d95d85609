"""The serving command line: mistakes, settings, the address, and how it ends."""

import errno
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
import urllib3

from serving.cli import commands
from serving.client import PolicyClient
from serving.server.master import address, bind
from serving.settings import ORIGIN, Settings
from tests.conftest import ENVIRONMENT, ROOT, Trained, run, running_service, started, wait_until


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--no-such-option"], "No such option"),
        (["run", "--models", "no/such/folder"], "no/such/folder"),
        (["run", "--models", "tests", "--port", "65536"], "--port"),
        (["run", "--models", "tests", "--workers", "0"], "--workers"),
        (["run", "--models", "tests", "--workers", "1025"], "--workers"),
        (["run", "--models", "tests", "--threads", "100000000000"], "--threads"),
        (["run", "--models", "tests", "--cors-origin", "https://\u4f8b.jp"], "--cors-origin"),
        (["run", "--models", "tests", "--cors-origin", "https://a.example?x"], "--cors-origin"),
        (["run", "--models", "tests", "--poll-seconds", "0"], "--poll-seconds"),
        (["run", "--models", "tests", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["run", "--models", "tests", "--host", "no.such.host.invalid"], "cannot listen on"),
        (["run", "--models", "tests", "--host", ""], "--host"),
        (["run", "--models", "tests", "--host", " "], "--host"),
        (["run", "--models", "tests", "--host", "\xe4..x"], "--host"),
        (["run", "--models", "tests", "--host", "a..b"], "cannot listen on a..b"),
        (["run", "--models", "tests", "--host", "::g"], "cannot listen on ::g"),
        (["health", "--host", ""], "--host"),
        (["play"], "--url"),
        (["play", "--url", "ftp://x"], "--url"),
        (["play", "--url", "http://127.0.0.1:9", "--episodes", "0"], "--episodes"),
        (["pull"], "--source"),
        (["pull", "--source", "ftp://host/models"], "'ftp://host/models' is not like s3://bucket"),
        (["pull", "--source", "https://joe:secret@host/models"], "without credentials"),
        (["pull", "--source", "http://[::1", "--models", "tests"], "http://[::1: invalid IPv6"),
        (["pull", "--source", "s3://bucket", "--models", "no/such/folder"], "no/such/folder"),
        (["pull", "--source", "s3://bucket", "--every", "0"], "--every"),
        (["compare", "--champion", "3", "--challenger", "4"], "--log"),
        (["compare", "--champion", "3", "--challenger", "4", "--log", "no/such"], "no/such"),
        (["no-such-command"], "No such command"),
        ([], "Missing command"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments: list[str], message: str) -> None:
    finished = run("serving", *arguments)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    assert message in finished.stderr


def test_a_command_that_is_ended_leaves_no_copy_of_a_version(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path))
    command = [sys.executable, "-m", "serving", "verify", str(trained.model_dir)]
    with started(tmp_path / "log", *command) as process:
        wait_until(lambda: any(tmp_path.glob("serving-*/*")))
        process.terminate()
        assert process.wait(60) == 143
    assert list(tmp_path.glob("serving-*")) == []


@pytest.mark.parametrize("origin", ["*", "https://a.example", "http://my_app:3000", "http://[::1]"])
def test_an_origin_is_taken_as_browsers_send_it(origin: str) -> None:
    assert ORIGIN.convert(origin, None, None) == origin


def test_a_port_in_use_is_one_line_and_exit_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = run("serving", "run", "--models", "tests", "--port", port)
    assert finished.returncode == 2
    expected = f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert finished.stderr == expected


def test_one_port_for_both_is_one_line_and_exit_status_2() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    options = ("--models", "tests", "--port", port, "--grpc-port", port)
    finished = run("serving", "run", *options)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == f"Error: --port and --grpc-port are both {port}\n"


FLOATS = [
    (command.name, parameter.opts[0])
    for command in commands.commands.values()
    for parameter in command.params
    if isinstance(parameter.type, type(click.FLOAT))
]


@pytest.mark.parametrize(("command", "option"), FLOATS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_number_that_is_not_finite_is_refused(command: str, option: str, value: str) -> None:
    with pytest.raises(click.BadParameter) as refusal:
        commands.main([command, option, value], standalone_mode=False)
    assert option in refusal.value.format_message()


def test_the_floats_of_every_command_are_known() -> None:
    assert {option for _, option in FLOATS} == {
        *("--min-return", "--request-timeout", "--client-timeout", "--poll-seconds"),
        *("--decision-log-sample", "--decision-log-days", "--wait", "--every", "--share"),
    }


@pytest.mark.parametrize("option", ["--max-in-flight", "--max-requests-in-hand"])
def test_an_old_option_still_sets_what_was_renamed(option: str) -> None:
    context = commands.commands["run"].make_context("run", ["--models", "tests", option, "5"])
    assert context.params["max_in_flight"] == 5
    assert "in-hand" not in run("serving", "run", "--help").stdout.lower().replace("_", "-")


def test_an_old_variable_still_sets_what_was_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    command = commands.commands["run"]
    monkeypatch.setenv("SERVING_MAX_REQUESTS_IN_HAND", "5")
    assert command.make_context("run", ["--models", "tests"]).params["max_in_flight"] == 5
    monkeypatch.setenv("SERVING_MAX_IN_FLIGHT", "6")
    assert command.make_context("run", ["--models", "tests"]).params["max_in_flight"] == 6


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-"])
def test_it_serves_with_closed_streams(trained: Trained, tmp_path: Path, closed: str) -> None:
    shell = ("sh", "-c", f'exec "$@" {closed}', "sh")
    with running_service(trained.models, tmp_path / "log", within=shell) as service:
        PolicyClient(service.url).wait_until_ready(60)
        for number in range(3):  # none was taken by a socket
            kind = Path(f"/proc/{service.process.pid}/fd/{number}").stat().st_mode
            assert not stat.S_ISSOCK(kind)


def test_variables_of_gunicorn_change_nothing(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "WEB_CONCURRENCY", "many")
    monkeypatch.setitem(ENVIRONMENT, "GUNICORN_PID", str(os.getpid()))
    with running_service(trained.models, tmp_path / "log") as service:
        PolicyClient(service.url).wait_until_ready(60)


def test_it_serves_without_standard_output(trained: Trained, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    shell = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh")
    options = ("--port", port)
    with running_service(trained.models, tmp_path / "log", *options, within=shell):
        PolicyClient(f"http://127.0.0.1:{port}").wait_until_ready(60)


def test_a_mistake_with_closed_standard_error_has_its_exit_status() -> None:
    command = f"{sys.executable} -m serving run --models no/such 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, env=ENVIRONMENT).returncode == 2


def test_every_setting_is_an_option_with_help_and_a_variable() -> None:
    shown = re.sub(r"\s+", " ", run("serving", "run", "--help").stdout)
    for setting in fields(Settings):
        assert f"--{setting.name.replace('_', '-')} " in shown
        assert f"SERVING_{setting.name.upper()}" in shown
        assert setting.metadata["help"] in shown


def test_a_link_local_address_has_its_zone() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EADDRNOTAVAIL)):
        bind("fe80::1%lo", 0)  # nobody's address; without its zone it would be invalid
    bound = SimpleNamespace(getsockname=lambda: ("fe80::1", 80, 0, socket.if_nametoindex("lo")))
    assert address(bound) == "[fe80::1%lo]:80"  # type: ignore[arg-type]  # as if it were bound


def test_the_socket_is_without_delay_before_anyone_can_connect() -> None:
    listener = bind("127.0.0.1", 0)
    with listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())


def test_an_address_that_another_took_during_the_start_is_one_line_and_exit_status_2(
    trained: Trained, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # Two sockets can be bound to an address that nobody listens on yet.
    with bind("127.0.0.1", 0) as other, starting(trained, log, str(other.getsockname()[1])) as one:
        wait_until(lambda: "Starting gunicorn" in log.read_text())
        other.listen()
        assert one.wait(60) == 2
    errors = [line for line in log.read_text().splitlines() if '"ERROR"' in line]
    assert len(errors) == 1
    assert "cannot listen: another process took the address during the start" in errors[0]
    assert "Traceback" not in log.read_text()
    assert list(tmp_path.glob("serving-*")) == []


def test_a_start_that_is_ended_leaves_no_folders(trained: Trained, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with starting(trained, log, "0") as service:
        wait_until(lambda: "Starting gunicorn" in log.read_text())
        time.sleep(0.2)  # TensorFlow is imported, which takes seconds
        service.terminate()
        service.wait(60)
    assert "Listening at" not in log.read_text()
    assert list(tmp_path.glob("serving-*")) == []


def starting(
    trained: Trained, log: Path, port: str
) -> AbstractContextManager[subprocess.Popen[str]]:
    """A service whose folder for temporary files is that of its log."""
    command = ("env", f"TMPDIR={log.parent}", sys.executable, "-m", "serving", "run")
    return started(log, *command, "--models", str(trained.models), "--port", port)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_its_workers(
    trained: Trained, tmp_path: Path, stop: signal.Signals
) -> None:
    log = tmp_path / "log"
    with running_service(trained.models, log) as service:
        wait_until(lambda: log.read_text().count("serving cartpole version 1") == 2)
        workers = children(service.process.pid)
        assert len(workers) == 2
        service.process.send_signal(stop)
        assert service.process.wait(timeout=30) == 0
        assert service.process.stdout is not None
        assert service.process.stdout.read() == ""  # the address was all
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", service.url)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    with pytest.raises(urllib3.exceptions.HTTPError):
        urllib3.request("GET", f"{service.url}/health/live", retries=False)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]
