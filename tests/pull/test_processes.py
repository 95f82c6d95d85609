"""The process: signals, several at once, and trouble of this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.registry.trial import Trials
from tests.conftest import ENVIRONMENT, ROOT, Trained, run, wait_until
from tests.faults.mounts import with_mounts
from tests.faults.wire import children
from tests.pull.sources import (
    S3,
    SOURCE,
    Looks,
    Rclone,
    end,
    found,
    left_over,
    running_pull,
)
from tests.test_monitoring import composes
from tests.tools import skip_outside_ci


@pytest.mark.parametrize(
    ("how", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_it_amid_a_file_and_the_next_run_cleans_up(
    trained: Trained,
    fake: S3,
    models: Path,
    tmp_path: Path,
    how: signal.Signals,
    status: int,
) -> None:
    go_on = threading.Event()

    def stall(content: bytes) -> Iterator[bytes]:
        yield content[:10]
        if not content.startswith(b"<List"):
            go_on.wait(30)
        yield content[10:]

    fake.add("cartpole/1", trained.model_dir)
    fake.pieces = stall
    with running_pull(models, tmp_path / "log", "--every", "0.2") as pulling:
        wait_until(lambda: (models / ".pulling" / "cartpole" / "1" / "assets.extra").exists())
        started = time.monotonic()
        assert end(pulling, how) == (status, "")
        assert time.monotonic() - started < 3
    go_on.set()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert found(models) == []
    assert (models / ".pulling" / "cartpole" / "1").exists() == (how == signal.SIGKILL)
    fake.listed = [("another/1/x", 3)]
    fake.pieces = lambda content: iter([content])
    finished = run("serving", "pull", "--source", SOURCE, "--models", str(models))
    assert finished.returncode == 1
    assert left_over(models) == [".lock"]


def test_a_single_look_that_is_terminated_is_no_success(
    fake: S3, models: Path, tmp_path: Path
) -> None:
    asked = threading.Event()
    go_on = threading.Event()

    def hang(_: str) -> None:
        asked.set()
        go_on.wait(30)

    fake.before_answer = hang
    with running_pull(models, tmp_path / "log") as pulling:
        assert asked.wait(30)
        assert end(pulling) == (143, "")
    go_on.set()


def test_two_processes_take_turns(trained: Trained, fake: S3, models: Path, tmp_path: Path) -> None:
    go_on = threading.Event()

    def stall_at_the_first_file(key: str) -> None:
        if key:
            go_on.wait(30)

    fake.add("cartpole/1", trained.model_dir)
    fake.before_answer = stall_at_the_first_file
    fetched = models / ".pulling" / "cartpole" / "1" / "assets.extra"
    with running_pull(models, tmp_path / "first") as first:
        wait_until(fetched.exists)
        with running_pull(models, tmp_path / "second") as second:
            time.sleep(1)
            assert fetched.exists()
            assert second.poll() is None
            go_on.set()
            assert first.communicate(timeout=30)[0] == "pulled cartpole version 1\n"
            assert second.communicate(timeout=30)[0] == ""
    assert (first.returncode, second.returncode) == (0, 0)


def test_trouble_of_this_machine_is_no_fault_of_the_version(
    trained: Trained, bucket: Rclone, look: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: Any) -> None:
        raise OSError("no process can be started; is there a limit of processes?")

    shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
    with monkeypatch.context() as patch:
        patch.setattr(Trials, "run", no_process)
        _, (trouble,) = look()
        assert "no process can be started" in trouble
    assert look() == (["pulled cartpole version 1"], [])


def test_it_ends_when_nothing_can_be_examined_any_more(
    trained: Trained, bucket: Rclone, models: Path, tmp_path: Path
) -> None:
    with running_pull(models, tmp_path / "log", "--every", "0.2") as pulling:
        wait_until(lambda: "there is no <name>" in (tmp_path / "log").read_text())
        (trials,) = children(pulling.pid)
        os.kill(trials, signal.SIGKILL)
        shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
        assert pulling.wait(30) == 1
    logged = (tmp_path / "log").read_text()
    assert "Error: the process that tries versions is gone" in logged
    assert "Traceback" not in logged
    assert found(models) == []


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        ('mount -t tmpfs -o size=64k none "$1"', "No space left on device"),
        ('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', "Read-only file system"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    trained: Trained, bucket: Rclone, models: Path, mount: str, reason: str
) -> None:
    shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
    finished = subprocess.run(
        [
            *with_mounts(mount, models),
            *(sys.executable, "-m", "serving", "pull", "--source", SOURCE, "--models", models),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.count("\n") == 1
    assert reason in finished.stderr


def test_without_obstore_it_says_what_to_install(models: Path) -> None:
    code = (
        "import sys; sys.modules['obstore'] = None; from serving.cli import main; "
        f"sys.argv[1:] = ['pull', '--source', {SOURCE!r}, '--models', {str(models)!r}]; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    expected = "Error: obstore is not installed: install actor-critic[pull]\n"
    assert finished.stderr == expected


def test_the_compose_profile_adds_pull_with_the_limits_of_what_writes_the_models() -> None:
    if ["docker", "compose"] not in composes():
        skip_outside_ci("no docker compose here")
    shown = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        env=ENVIRONMENT | {"SERVING_SOURCE": SOURCE},
        capture_output=True,
        text=True,
        check=True,
    )
    services = json.loads(shown.stdout)["services"]
    pulling, operate = services["pull"], services["operate"]
    assert pulling["build"]["target"] == "pull"
    assert pulling["environment"]["SERVING_SOURCE"] == SOURCE
    # Everything else is the same: hardened, with limits, and the models can be written.
    assert pulling["volumes"] == operate["volumes"][:1]
    own = {"build", "command", "environment", "profiles", "restart", "volumes"}
    assert {k: v for k, v in pulling.items() if k not in own} == {
        k: v for k, v in operate.items() if k not in own
    }
    dockerfile = (ROOT / "Dockerfile.serve").read_text()
    # What is built without a target is the service.
    assert dockerfile.rstrip().endswith("\nFROM serve")
