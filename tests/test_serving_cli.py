"""The serving command line: mistakes, settings, the address, and how it ends."""

import re
import signal
import socket
from dataclasses import fields
from pathlib import Path

import pytest
import urllib3

from serving.server.master import bind
from serving.settings import Settings
from tests.conftest import Trained, run, running_service, wait_until


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--no-such-option"], "No such option"),
        (["run", "--models", "no/such/folder"], "no/such/folder"),
        (["run", "--models", "tests", "--port", "65536"], "--port"),
        (["run", "--models", "tests", "--workers", "0"], "--workers"),
        (["run", "--models", "tests", "--poll-seconds", "0"], "--poll-seconds"),
        (["run", "--models", "tests", "--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
        (["run", "--models", "tests", "--host", "no.such.host.invalid"], "cannot listen on"),
        (["play"], "--url"),
        (["play", "--url", "ftp://x"], "--url"),
        (["play", "--url", "http://127.0.0.1:9", "--episodes", "0"], "--episodes"),
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


def test_a_port_in_use_is_one_line_and_exit_status_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finished = run("serving", "run", "--models", "tests", "--port", port)
    assert finished.returncode == 2
    expected = f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert finished.stderr == expected


def test_every_setting_is_an_option_with_help_and_a_variable() -> None:
    shown = re.sub(r"\s+", " ", run("serving", "run", "--help").stdout)
    for setting in fields(Settings):
        assert f"--{setting.name.replace('_', '-')} " in shown
        assert f"SERVING_{setting.name.upper()}" in shown
        assert setting.metadata["help"] in shown


def test_the_socket_is_without_delay_before_anyone_can_connect() -> None:
    listener = bind("127.0.0.1", 0)
    with listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())


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
