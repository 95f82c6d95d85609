"""The command `score`: what it says, how it ends, and what it leaves behind."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ENVIRONMENT, ROOT, Service, Trained, run, wait_until
from tests.scoring import FORMATS, answer, expect_equal, observations, read, write


def command(trained: Trained, source: Path, target: Path, *options: str) -> list[str]:
    where = ("--models", str(trained.models))
    return ["serving", "score", str(source), str(target), *where, *options]


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.mark.long
@pytest.mark.parametrize("suffix", FORMATS)
def test_ten_times_the_rows_take_no_more_memory(
    trained: Trained, tmp_path: Path, suffix: str
) -> None:
    def peak(rows: int) -> int:
        """Kibibytes."""
        source = write(tmp_path / f"in{suffix}", observations(rows))
        arguments = command(trained, source, tmp_path / f"out{suffix}")
        # Of a process in between: one that is forked begins with the peak of the tests' own.
        finished = subprocess.run(
            [sys.executable, "-c", PEAK, sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
        )
        assert finished.returncode == 0, finished.stderr
        return int(finished.stdout.splitlines()[-1])

    # The observations of the rest alone take more, in any form.
    few, many = peak(200_000), peak(2_000_000)
    assert many < few + 28_000


def test_the_command_says_what_it_did(trained: Trained, service: Service, tmp_path: Path) -> None:
    rows = observations(100)
    rows[3, 0] = 1000
    source, target = write(tmp_path / "in.csv", rows), tmp_path / "out.jsonl"
    finished = run(*command(trained, source, target, "--seed", "11"))
    assert (finished.returncode, finished.stderr) == (0, "")
    said = dict(line.split(maxsplit=1) for line in finished.stdout.splitlines()[:3])
    assert said["scored"].startswith("100 rows in ")
    assert said["model"].startswith("cartpole version 1, digest ")
    assert said["seed"] == "11"
    last = finished.stdout.splitlines()[3]
    assert last == "out of range   1 rows are outside the ranges that training saw"
    expect_equal(read(target), answer(service, rows, seed=11))
    assert (target.stat().st_mode & 0o777) == (source.stat().st_mode & 0o777)


@pytest.mark.long
def test_a_drawn_seed_is_told_and_replays(trained: Trained, tmp_path: Path) -> None:
    source = write(tmp_path / "in.npy", observations(500))
    first, again = tmp_path / "first.npy", tmp_path / "again.npy"
    reported = json.loads(run(*command(trained, source, first, "--json")).stdout)
    assert (reported["rows"], reported["out_of_range_rows"]) == (500, 0)
    assert reported["model"]["name"] == "cartpole"
    run(*command(trained, source, again, "--seed", str(reported["seed"]), "--json"))
    expect_equal(read(again), read(first))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("in.txt", "out.npy"), (), "in.txt: the format must be one of .csv, .jsonl, .npy, .parq"),
        (("in.npy", "out"), (), "out: the format must be one of"),
        (("in.npy", "in.npy"), (), "in.npy: the results would overwrite the observations"),
        (("in.npy", "no/such/out.npy"), (), "No such file or directory"),
        (("in.npy", "out.npy"), ("--seed", str(2**53)), "--seed"),
        (("in.npy", "out.npy"), ("--name", "other"), "no version of other is served"),
    ],
)
def test_a_mistake_is_one_line(
    trained: Trained, tmp_path: Path, names: Any, options: Any, message: str
) -> None:
    for name in ("in.npy", "in.txt"):
        np.save(tmp_path / "in.npy", observations(3))
        (tmp_path / name).touch()
    source, target = (tmp_path / name for name in names)
    before = sorted(tmp_path.iterdir())
    finished = run(*command(trained, source, target, *options))
    assert finished.returncode == (1 if "no/such" in names[1] else 2)
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    assert message in finished.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long),
    ],
)
def test_a_run_that_is_stopped_leaves_nothing(
    trained: Trained, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    source = tmp_path / "in.csv"
    os.mkfifo(source)  # so that it never ends
    line = ",".join(map(str, observations(1)[0].tolist())).encode() + b"\n"
    arguments = command(trained, source, tmp_path / "out.csv")
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE
    ) as process:
        with source.open("wb") as pipe:
            pipe.write(line * 40_000)
            pipe.flush()
            writing = list(tmp_path.glob(".writing-*"))
            assert len(writing) == 1
            wait_until(lambda: writing[0].stat().st_size > 0)
            time.sleep(0.2)
            process.send_signal(number)
        assert process.wait(30) == status
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.long
def test_progress_is_shown_on_a_terminal_only(trained: Trained, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", observations(30_000))
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", *command(trained, source, tmp_path / "out.npy", "--json")],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        output, _ = process.communicate(timeout=60)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert json.loads(output)["rows"] == 30_000
    assert "100%" in shown
