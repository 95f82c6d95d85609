"""Signals to the real command, at any moment, change nothing of what a run ends with."""

import hashlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ENVIRONMENT, ROOT
from tests.runs import SMALL, new_run, resume
from training.folder import read_settings, write_settings

CARD = "assets.extra/policy.json"
PATIENCE_SECONDS = 300


class Training(NamedTuple):
    process: subprocess.Popen[str]
    stdout: IO[str]
    stderr: IO[str]

    def reports(self) -> Iterator[int]:
        """Environment steps of each line of progress, as soon as it is printed."""
        for line in self.stderr:
            if found := re.search(r"(\d+) steps,", line):
                yield int(found[1])

    def to_its_end(self) -> None:
        errors = self.stderr.read()
        assert self.process.wait() == 0, errors


@contextmanager
def training(*options: str) -> Iterator[Training]:
    """The real command, as long as it is looked at.

    A page is all that its pipes hold: more than that it cannot be ahead of who reads its
    progress, and so not at its end before a signal is sent.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "training", "train", *options],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pipesize=4096,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        watchdog = threading.Timer(PATIENCE_SECONDS, process.kill)
        watchdog.start()
        try:
            yield Training(process, process.stdout, process.stderr)
        finally:
            watchdog.cancel()
            process.kill()


def last_checkpoint(folder: Path) -> int:
    latest = tf.train.latest_checkpoint(folder / "checkpoints")
    return 0 if latest is None else int(latest.rpartition("-")[2])


def versions(models: Path) -> list[Path]:
    return [path for path in (models / "novice").iterdir() if path.name.isdecimal()]


def nothing_is_broken(folder: Path, models: Path) -> None:
    for path in folder.glob("*.json"):
        json.loads(path.read_text())
    for version in versions(models):
        for path, checksum in json.loads((version / CARD).read_text())["checksums"].items():
            if path != CARD:  # its own checksum is of itself without it
                assert hashlib.sha256((version / path).read_bytes()).hexdigest() == checksum


def outcome(folder: Path, models: Path) -> tuple[dict[str, Any], bytes]:
    """All that a run leaves, without what depends on the clock, the process or the checkout."""
    (version,) = versions(models)
    card = json.loads((version / CARD).read_text())
    for field in ("created", "git_commit"):
        del card[field]
    del card["training"]["seconds"]
    # The checksums of the weights, the golden values and the pictures remain. TensorFlow
    # numbers the functions in a graph by what its process did before.
    for path in (CARD, "saved_model.pb", "fingerprint.pb"):
        del card["checksums"][path]
    return card, (folder / "metrics.csv").read_bytes()


class NeverStopped(NamedTuple):
    folder: Path
    outcome: tuple[dict[str, Any], bytes]


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> NeverStopped:
    folder, models = new_run(tmp_path_factory.mktemp("never"))
    with training(*resume(folder)) as run:
        run.to_its_end()
    nothing_is_broken(folder, models)
    return NeverStopped(folder, outcome(folder, models))


@pytest.mark.long
@pytest.mark.parametrize("parts", [1, 3])
def test_sigkill_at_random_moments_changes_nothing(
    never_stopped: NeverStopped, tmp_path: Path, parts: int
) -> None:
    folder, models = new_run(tmp_path)
    rng = np.random.default_rng(0)
    reached = 0
    for part in range(parts):  # one in each of the first three eighths of the run
        moment = SMALL.max_env_steps * rng.uniform(part, part + 1) / 8
        with training(*resume(folder)) as run:
            # lost is at most the work since the last checkpoint
            steps = next(run.reports())
            assert steps > reached - SMALL.checkpoint_interval * SMALL.rollout_size
            reached = next(reported for reported in run.reports() if reported >= moment)
            time.sleep(rng.uniform(0, 0.1))
            run.process.kill()
        assert run.process.returncode == -signal.SIGKILL
        nothing_is_broken(folder, models)
        assert not (folder / "result.json").exists()
    with training(*resume(folder)) as run:
        run.to_its_end()
    nothing_is_broken(folder, models)
    assert [path.name for path in (models / "novice").iterdir()] == ["1"]
    assert outcome(folder, models) == never_stopped.outcome


@pytest.mark.long
def test_sigkill_while_exporting_leaves_one_whole_version(
    never_stopped: NeverStopped, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    folder = shutil.copytree(never_stopped.folder, tmp_path / "run")
    settings = read_settings(folder)._replace(models=str(models / "novice"))
    write_settings(folder, settings)
    (folder / "result.json").unlink()  # its last checkpoint is written, and no more

    with training(*resume(folder)) as run:
        while not list((models / "novice").glob(".writing-*")) and run.process.poll() is None:
            time.sleep(0.005)
        time.sleep(np.random.default_rng(0).uniform(0, 0.2))
        run.process.kill()
    nothing_is_broken(folder, models)
    if not (folder / "result.json").exists():  # as it does if the kill came late
        with training(*resume(folder)) as run:
            run.to_its_end()
    nothing_is_broken(folder, models)
    assert outcome(folder, models) == never_stopped.outcome


@pytest.mark.long
def test_a_signal_stops_with_a_checkpoint_to_go_on_from(
    never_stopped: NeverStopped, tmp_path: Path
) -> None:
    folder, models = new_run(tmp_path)
    for number, status in [(signal.SIGTERM, 143), (signal.SIGINT, 130)]:
        with training(*resume(folder)) as run:
            next(run.reports())
            run.process.send_signal(number)
            errors = run.stderr.read()
            assert run.stdout.read() == ""
            assert run.process.wait() == status, errors
        _, _, options = errors.splitlines()[-1].partition("resume with: ")
        # nothing is lost: the checkpoint is of the last row, or of the update after it, where
        # its evaluation was stopped and its row comes with that
        rows = (folder / "metrics.csv").read_text().splitlines()
        assert int(rows[-1].split(",")[0]) == len(rows) - 1
        assert last_checkpoint(folder) - (len(rows) - 1) in (0, 1)
        nothing_is_broken(folder, models)
        assert list((models / "novice").iterdir()) == []
    # What it said is enough to continue, with the folder of models and all.
    with training(*shlex.split(options)) as run:
        run.to_its_end()
    assert outcome(folder, models) == never_stopped.outcome
