"""The files of a decision log: while a service writes them, removed, copied or edited."""

import os
import re
import resource
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from serving.metrics import Metrics
from serving.record import log as decision_log
from serving.record.files import recover
from serving.record.lines import Feedback
from serving.record.log import DecisionLog
from serving.record.reader import LogError, read_lines
from serving.record.retention import delete_old
from serving.schemas import FeedbackRequest
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


def test_files_of_others_in_the_folder_are_neither_completed_nor_counted_nor_deleted(
    folder: Path, key: Key
) -> None:
    parts = signed_stream(folder, key)
    names = ["2026-11-30.jsonl", "data.jsonl", "data.jsonl.open", "2026-11-30.jsonl.open"]
    for name in names:
        (folder / name).write_bytes(b'{"a":1}\n' * 1000)
        os.utime(folder / name, (0, 0))
    recover(folder, None)
    delete_old(folder, days=1, total_bytes=sum(path.stat().st_size for path in parts), file_bytes=9)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*names, *(path.name for path in parts)]
    )


def test_after_the_clock_was_set_back_earlier_parts_go_first(folder: Path, key: Key) -> None:
    parts = signed_stream(folder, key)
    for path, age in zip(parts, (4.0, 3.9, 4.1, 3.8), strict=True):
        os.utime(path, (time.time() - 86_400 * age,) * 2)
    delete_old(folder, days=4.05, total_bytes=10**6, file_bytes=0)
    assert sorted(folder.iterdir()) == parts[3:]
    assert list(read_lines(folder)) == []


def test_files_that_cannot_be_written_or_deleted_are_told_once_and_keep_no_others(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "_CLEAN_UP_SECONDS", 0.0)
    began = "20201129T112832Z"
    folders = [folder / f"{began}-0a-000001.jsonl{suffix}" for suffix in (".open", "")]
    for path in folders:
        path.mkdir()
    left, old = folder / f"{began}-0b-000001.jsonl.open", folder / f"{began}-0c-000001.jsonl"
    left.touch()
    old.touch()
    for path in (*folders, left, old):
        os.utime(path, (0, 0))
    log = DecisionLog(Settings(decision_log=folder), Metrics(), None)
    wait_until(lambda: not left.exists() and not old.exists(), 5)
    time.sleep(0.2)
    log.close()
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert errors == [
        f"{folders[1]} cannot be deleted: Is a directory",
        f"{folders[0]} cannot be completed: Is a directory",
    ]


def test_a_file_that_cannot_be_deleted_keeps_the_later_parts_of_its_stream(folder: Path) -> None:
    began = "20201129T112832Z"
    names = [f"{began}-{stream}-00000{part}.jsonl" for stream in ("0a", "0b") for part in (1, 2, 3)]
    (folder / names[0]).mkdir()
    for name in names[1:]:
        (folder / name).touch()
    for name in names:
        os.utime(folder / name, (0, 0))
    told = delete_old(folder, days=1, total_bytes=1_000_000, file_bytes=1_000)
    assert told == [f"{folder / names[0]} cannot be deleted: Is a directory"]
    assert sorted(path.name for path in folder.iterdir()) == names[:3]


def test_old_files_are_deleted_while_the_disk_is_full(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "_CLEAN_UP_SECONDS", 0.1)
    old = folder / "20201129T112832Z-0a-000001.jsonl"
    old.touch()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        log = DecisionLog(Settings(decision_log=folder), Metrics(), None)
        log.record_feedback("a", RETURN)
        time.sleep(0.3)
        os.utime(old, (0, 0))
        wait_until(lambda: not old.exists(), 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
        log.close()
    assert len(list(read_lines(folder))) == 1


def test_a_block_that_the_disk_takes_in_pieces_is_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_piece = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, at: write_piece(file, data[:50], at))
    writer = stream(folder, None)
    write(writer, 1, 3)
    writer.close()
    assert [line.number for line in read_lines(folder)] == [1, 2, 3]


def test_a_file_is_synced_to_disk_before_its_name_says_that_it_is_complete(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []

    def fsync(descriptor: int) -> None:
        (path,) = folder.glob("*.open")
        assert os.fstat(descriptor).st_ino == path.stat().st_ino
        synced.append(path.read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    writer = stream(folder, None)
    write(writer, 1, 1)
    writer.close()
    (path,) = folder.iterdir()
    assert synced == [path.read_bytes()]


def test_what_is_on_record_is_for_the_service_and_its_group_alone(folder: Path) -> None:
    writer = stream(folder, None)
    write(writer, 1, 1)
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o137 == 0
    writer.close()


def test_feedback_is_on_record_for_the_share_of_episodes_whose_decisions_are(folder: Path) -> None:
    settings = Settings(decision_log=folder, decision_log_sample=0.5)
    log = DecisionLog(settings, Metrics(), None)
    names = [f"e{number}" for number in range(1_000)]
    for name in names:
        log.record_feedback("a", FeedbackRequest(episode=name, return_=1.0))
    log.record_feedback("b", FeedbackRequest(request="r", return_=1.0))
    log.close()
    recorded = [line.episode for line in read_lines(folder) if isinstance(line, Feedback)]
    assert recorded == [*(name for name in names if crc32(name.encode()) < 2**31), None]
    assert 450 < len(recorded) < 550


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
        log.record_feedback("a", RETURN)
    wait_until(lambda: b"policy_decision_log_lines_total 3.0" in metrics.text()[0], 5)
    (path,) = folder.iterdir()
    path.unlink()
    wait_until(lambda: b"policy_decision_log_lost_total 3.0" in metrics.text()[0], 5)
    log.record_feedback("b", RETURN)
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
NOT_WHOLE = "lacks a field that every decision has"


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
