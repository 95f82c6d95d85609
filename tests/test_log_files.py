"""The files of a decision log: while a service writes them, removed, copied or edited."""

import re
import resource
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from serving.metrics import Metrics
from serving.record.files import delete_old
from serving.record.log import DecisionLog
from serving.record.reader import LogError, read_lines
from serving.settings import Settings
from tests.conftest import wait_until
from tests.signatures import Key
from tests.test_decision_log import RETURN, numbered, write
from tests.test_log_signatures import as_line, signed_stream, stream


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "record").mkdir()
    return tmp_path / "record"


def test_a_log_is_read_while_files_are_completed_rotated_and_deleted(folder: Path) -> None:
    stops = threading.Event()

    def record() -> None:
        writer = stream(folder, None, 3_000)
        first = 1
        while not stops.wait(0.001):
            write(writer, first, 20)
            first += 20
            delete_old(folder, days=1, total_bytes=60_000, file_bytes=3_000)
        writer.close()

    threads = [threading.Thread(target=record) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(list(folder.iterdir())) >= 10, 20)
        until, read = time.monotonic() + 3, 0
        while time.monotonic() < until:
            read += sum(1 for _ in read_lines(folder))
    finally:
        stops.set()
        for thread in threads:
            thread.join()
    assert read > 1000


def test_files_that_are_deleted_by_their_age_meanwhile_are_not_missed(
    folder: Path, key: Key
) -> None:
    parts = signed_stream(folder, key)  # of two lines each
    before_both = read_lines(folder)
    lines = read_lines(folder)
    assert next(before_both).number == next(lines).number == 1
    parts[1].unlink()
    with pytest.raises(LogError, match=r"between .*-000001.jsonl and .*-000003.jsonl is missing"):
        list(lines)
    parts[0].unlink()
    (folder / "20261129T112832Z-0a-000001.jsonl.open").touch()  # and one is being made
    assert [line.number for line in before_both] == [2, 5, 6]
    assert [line.number for line in read_lines(folder)] == [5, 6]


def test_a_file_that_is_there_twice_is_told(folder: Path, key: Key) -> None:
    parts = signed_stream(folder, key)
    copy = parts[1].with_name(f"20201129T112832Z-{parts[1].name.split('-', 1)[1]}")
    shutil.copyfile(parts[1], copy)
    with pytest.raises(LogError, match=r"-000002.jsonl and .*-000002.jsonl are the same part"):
        list(read_lines(folder))
    copy.rename(parts[1].with_name(f"{parts[1].name}.open"))
    with pytest.raises(LogError, match=r"are the same part"):
        list(read_lines(folder))


def test_files_that_are_removed_while_they_are_written_are_told_and_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    log = DecisionLog(Settings(decision_log=folder), metrics, None)
    for _ in range(3):
        log.fed_back("a", RETURN)
    wait_until(lambda: b"policy_decision_log_lines_total 3.0" in metrics.text()[0], 5)
    (path,) = folder.iterdir()
    path.unlink()
    wait_until(lambda: b"policy_decision_log_lost_total 3.0" in metrics.text()[0], 5)
    log.fed_back("b", RETURN)
    log.close()
    assert [(line.number, line.id) for line in read_lines(folder)] == [(4, "b")]
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [f"{path} was removed, and 3 lines with it"]


def test_a_disk_that_is_full_when_a_file_is_rotated_leaves_a_log_that_is_read(
    folder: Path,
) -> None:
    writer = stream(folder, None, 1)
    writer.write(numbered(1, 1), 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.rotate()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    writer.write(numbered(2, 1), 3)
    writer.close()
    assert len(list(folder.iterdir())) == 1
    assert [line.number for line in read_lines(folder)] == [1, 2]


DECISION: dict[str, Any] = {
    "type": "decision",
    "number": 1,
    "id": "a",
    "time": "t",
    "model": {"name": "cartpole", "version": 1, "digest": "d"},
    "selection": "s",
    "observations": [[0.0], [1.0]],
    "seed": 2**53 - 1,
    "actions": [0, 2**31 - 1],
    "log_probabilities": [-0.1, -0.2],
    "state_values": [1.0, 2.0],
    "milliseconds": 0.4,
}
NO_LINE = "is not a line of a decision log: "
NOT_WHOLE = "has not what every decision has"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"seed": -1}, NO_LINE),
        ({"seed": 2**64}, NO_LINE),
        ({"actions": [0, 2**63]}, NO_LINE),
        ({"actions": [0, -1]}, NO_LINE),
        ({"uniforms": [0.1, 0.2]}, NOT_WHOLE),  # beside a seed
        ({"seed": None}, NOT_WHOLE),
        ({"seed": None, "uniforms": [0.1, 0.2]}, ""),
        ({"seed": None, "uniforms": [0.1]}, NOT_WHOLE),
        ({"deterministic": [True, False]}, ""),
        ({"deterministic": [True]}, NOT_WHOLE),
        ({"observations": [[0.0]]}, NOT_WHOLE),
        ({"observations": None}, ""),
        ({"state_values": [1.0]}, NOT_WHOLE),
    ],
)
def test_a_decision_that_cannot_have_been_written_is_named_whatever_its_hash(
    folder: Path, change: dict[str, Any], why: str
) -> None:
    writer = stream(folder, None)
    writer.write([as_line(DECISION | change)], 2)
    writer.close()
    (path,) = folder.iterdir()
    if why:
        with pytest.raises(LogError, match=re.escape(f"{path.name}, line 3: {why}")):
            list(read_lines(folder))
    else:
        assert len(list(read_lines(folder))) == 1
