"""The decision log: what is decided is on record, whatever happens to workers and disks."""

import os
import resource
import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import urllib3

from serving.metrics import Metrics
from serving.record import log as decision_log
from serving.record.files import Stream, recover
from serving.record.lines import Block, Decision, Feedback, Head, Lost
from serving.record.log import DecisionLog
from serving.record.reader import LogError, read_lines, read_sections
from serving.record.retention import delete_old
from serving.schemas import FeedbackRequest
from serving.settings import Settings
from tests.conftest import ROOT, Service, Trained, run, wait_until
from tests.decision_logs import JSON, lines_in, lines_of, post, recording_service

RETURN = FeedbackRequest(episode="e", return_=1.0)
ROW = [0.01, -0.02, 0.03, 0.04]
LINE = b'"id":"a","time":"t","episode":"e","return":1.0,"ended":true}\n'


def decisions(folder: Path) -> list[Decision]:
    return [line for line in lines_in(folder) if isinstance(line, Decision)]


def test_every_protocol_is_on_record_as_it_was_answered(trained: Trained, tmp_path: Path) -> None:
    tensor = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": ROW}
    instance = {"observations": ROW, "uniforms": 0.25, "deterministic": False}
    predict = {"signature_name": "act", "instances": [instance]}
    with recording_service(trained.models, tmp_path) as service:
        url = service.url
        act = {"observations": [ROW, ROW], "seed": 7, "episode": "e-1", "step": 4}
        acted = post(f"{url}/act", act, **{"X-Request-ID": "first"})
        header = {"X-Episode-ID": "e-2", "X-Request-ID": "second"}
        inferred = post(f"{url}/v2/models/cartpole/infer", {"inputs": [tensor]}, **header)
        predicted = post(f"{url}/v1/models/cartpole:predict", predict, **{"X-Request-ID": "third"})
        far = {"observation": [9.0, 0.0, 0.0, 0.0], "deterministic": True, "step": 3}
        warned = post(f"{url}/act", far, **{"X-Request-ID": "fourth"})
        refused = urllib3.request("POST", f"{url}/act", body=b"{}", headers=JSON)
        assert refused.status == 422
        wait_until(lambda: len(decisions(tmp_path / "record")) == 4, 5)
    recorded = {one.id: one for one in decisions(tmp_path / "record")}
    assert recorded.keys() == {"first", "second", "third", "fourth"}
    first, second = recorded["first"], recorded["second"]
    third, fourth = recorded["third"], recorded["fourth"]
    assert (first.episode, first.step, first.seed) == ("e-1", 4, 7)
    assert np.array_equal(
        np.array(first.observations, np.float32), np.array([ROW, ROW], np.float32)
    )
    for name in ("actions", "log_probabilities", "state_values"):
        assert getattr(first, name) == acted[name]
    model = first.model
    assert acted["model"] == {"name": model.name, "version": 1, "digest": model.digest}
    assert (second.episode, second.step) == ("e-2", None)
    assert second.seed == inferred["parameters"]["seed"]
    assert (third.uniforms, third.seed, third.deterministic) == ([0.25], None, [False])
    assert third.actions == [predicted["predictions"][0]["actions"]]
    assert fourth.deterministic is True
    assert (fourth.episode, fourth.step) == (None, 3)
    assert fourth.warnings == warned["warnings"] != []
    assert fourth.milliseconds > 0


@pytest.mark.parametrize("episode", ["", "a b", "a\n", "x" * 129, 'a","selection":"'], ids=range(5))
def test_an_episode_that_is_no_plain_word_is_refused(service: Service, episode: str) -> None:
    body = {"observation": ROW, "episode": episode}
    refused = urllib3.request("POST", f"{service.url}/act", json=body)
    assert refused.status == 422
    assert "episode" in refused.json()["detail"]


def test_a_header_that_is_no_plain_word_is_refused_beside_a_good_field(service: Service) -> None:
    body = {"observation": ROW, "episode": "good"}
    headers = {"X-Episode-ID": "a,b"}
    refused = urllib3.request("POST", f"{service.url}/act", json=body, headers=headers)
    assert refused.status == 422
    assert "X-Episode-ID" in refused.json()["detail"]


def send_until(stop: threading.Event, url: str, sent: dict[str, float]) -> None:
    """Ask for decisions one after the other, and note when each was answered."""
    with urllib3.PoolManager(headers=JSON, retries=False) as pool:
        number = 0
        while not stop.is_set():
            number += 1
            own_id = f"{threading.get_ident()}-{number}"
            headers = {**JSON, "X-Request-ID": own_id}
            try:
                pool.request("POST", url, json={"observation": ROW}, headers=headers)
            except urllib3.exceptions.HTTPError:
                continue
            sent[own_id] = time.monotonic()


def test_a_killed_worker_loses_little_and_leaves_files_that_can_be_read(
    trained: Trained, tmp_path: Path
) -> None:
    answered: dict[str, float] = {}
    stop = threading.Event()
    log = tmp_path / "record"
    with recording_service(trained.models, tmp_path) as service:
        url = f"{service.url}/act"
        threads = [
            threading.Thread(target=send_until, args=(stop, url, answered)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        left = len(list(log.glob("*.open")))  # of workers that have decided
        children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
        killed = time.monotonic()
        for child in children.read_text().split():
            os.kill(int(child), signal.SIGKILL)
        wait_until(lambda: len(list(log.glob("*.jsonl"))) == left)  # their successors'
        wait_until(lambda: len(list(log.glob("*.open"))) >= 1)
        stop.set()
        for thread in threads:
            thread.join()
    ends = [lines_of(path)[-1] for path in log.iterdir()]
    assert [getattr(end, "end", None) for end in ends].count("recovered") == left > 0
    on_record = {one.id for one in read_lines(log)}
    lost = {own_id: when for own_id, when in answered.items() if own_id not in on_record}
    assert len(on_record) > 100
    assert all(killed - when < 0.2 for when in lost.values()), killed - min(lost.values())


def test_a_disk_that_is_full_costs_records_and_no_answer(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "MAX_PENDING_BYTES", 300)
    folder = tmp_path / "record"
    folder.mkdir()
    metrics = Metrics()
    log = DecisionLog(Settings(models=trained.models, decision_log=folder), metrics, None)
    log.record_feedback("a", RETURN)
    wait_until(lambda: len(lines_in(folder)) == 4, 5)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (next(folder.iterdir()).stat().st_size, hard))
    try:
        for _ in range(20):
            log.record_feedback("a", RETURN)
            time.sleep(0.02)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    wait_until(lambda: len(lines_in(folder)) > 4, 5)
    log.record_feedback("a", RETURN)
    log.close()
    written = [line for section in read_sections(folder) for line in section.lines]
    lost = [line.line.lines for line in written if isinstance(line.line, Lost)]
    assert len(lost) == 1
    assert len(written) - 1 + lost[0] == 22
    assert b"policy_decision_log_lost_total %d.0" % lost[0] in metrics.text()[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "record").mkdir()
    return tmp_path / "record"


def stream(folder: Path, file_bytes: int = 10**6) -> Stream:
    return Stream(folder, file_bytes=file_bytes, sample=1.0, rows=True, sign=None)


def numbered(first: int, count: int) -> list[bytes]:
    return [b'{"type":"feedback","number":%d,%b' % (first + i, LINE) for i in range(count)]


def write(writer: Stream, first: int, count: int) -> None:
    """Write a block of so many lines, and rotate where that is due, as the log does."""
    writer.write(numbered(first, count), first + count)
    writer.rotate()


def test_files_are_rotated_by_size_and_time_and_chained(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = stream(folder, 800)
    for number in range(1, 11):
        write(writer, number, 1)
    by_size = len(list(folder.iterdir()))
    assert by_size > 2
    writer.write(numbered(11, 1), 12)
    monkeypatch.setattr("serving.record.files.FILE_SECONDS", 0.0)
    writer.rotate()
    writer.rotate()  # an empty one continues
    assert len(list(folder.iterdir())) == by_size + 1
    writer.close()
    assert [line.number for line in read_lines(folder)] == list(range(1, 12))
    heads = [line for line in lines_in(folder) if isinstance(line, Head)]
    assert [head.part for head in heads] == list(range(1, by_size + 2))
    ends = [line.end for line in lines_in(folder) if isinstance(line, Block) and line.end]
    assert ends == ["rotated"] * by_size + ["stopped"]


def test_the_oldest_files_go_when_all_take_too_much_or_are_too_old(folder: Path) -> None:
    writer = stream(folder, 1)
    for number in range(1, 6):
        write(writer, number, 1)
    writer.close()
    paths = sorted(folder.iterdir())
    for age, path in enumerate(reversed(paths)):
        os.utime(path, (time.time() - 86_400 * (age + 0.5),) * 2)
    sizes = [path.stat().st_size for path in paths]
    delete_old(folder, days=3, total_bytes=10**6, file_bytes=0)
    assert sorted(folder.iterdir()) == paths[-3:]
    assert [line.number for line in read_lines(folder)] == [4, 5]
    delete_old(folder, days=3, total_bytes=sum(sizes[-2:]), file_bytes=0)
    assert sorted(folder.iterdir()) == paths[-2:]


def test_what_a_killed_worker_left_is_completed_and_what_another_begins_is_left_alone(
    folder: Path,
) -> None:
    killed = stream(folder)
    write(killed, 1, 2)
    (path,) = folder.iterdir()
    content = path.read_bytes() + numbered(3, 1)[0] + numbered(4, 1)[0][:20]
    left = path.with_name(path.name.replace("-000001", "0-000001"))
    left.write_bytes(content)
    new_file, forgotten = (
        folder / f"20261129T112832Z-{stream_name}-000001.jsonl.open" for stream_name in ("ab", "cd")
    )
    new_file.touch()
    forgotten.touch()
    os.utime(forgotten, (0, 0))
    recover(folder, None)
    assert path.exists()  # its worker lives: it holds the lock
    assert new_file.exists()
    assert not forgotten.exists()
    completed = lines_of(left.with_suffix(""))
    assert [line.number for line in completed if isinstance(line, Feedback)] == [1, 2, 3]
    assert isinstance(completed[-1], Block)
    assert completed[-1].end == "recovered"
    recover(folder, None)
    assert not left.exists()


def test_all_files_together_stay_within_the_limit(trained: Trained, folder: Path) -> None:
    limit = 1024**2
    settings = Settings(
        models=trained.models, decision_log=folder, decision_log_bytes=limit, workers=1
    )
    metrics = Metrics()
    log = DecisionLog(settings, metrics, None)
    most = 0

    def has_written(lines: int) -> bool:
        return b"policy_decision_log_lines_total %d.0\n" % lines in metrics.text()[0]

    for end in range(1_000, 30_001, 1_000):
        for _ in range(1_000):
            log.record_feedback("a", RETURN)
        wait_until(partial(has_written, end), 5)
        most = max(most, sum(path.stat().st_size for path in folder.iterdir()))
    log.close()
    assert limit / 2 < most <= limit
    numbers = [line.number for line in read_lines(folder)]
    assert numbers == list(range(numbers[0], 30_001))
    assert numbers[0] > 1


def test_what_is_too_long_for_the_log_is_lost_and_told_and_the_rest_stays(folder: Path) -> None:
    limit = 1024**2
    metrics = Metrics()
    settings = Settings(models=folder, decision_log=folder, decision_log_bytes=limit, workers=1)
    log = DecisionLog(settings, metrics, None)
    for rewards in ([1.0], [0.125] * (limit // 12), [2.0]):  # of six bytes each with its comma
        log.record_feedback("a", FeedbackRequest(episode="e", rewards=rewards))
    log.close()
    lines = list(read_lines(folder))
    assert [line.rewards for line in lines if isinstance(line, Feedback)] == [[1.0], [2.0]]
    written = [one.line for section in read_sections(folder) for one in section.lines]
    assert [(one.first, one.lines) for one in written if isinstance(one, Lost)] == [(2, 1)]
    assert b"policy_decision_log_lost_total 1.0" in metrics.text()[0]


def test_a_share_of_whole_episodes_is_recorded_without_rows_where_asked(
    trained: Trained, tmp_path: Path
) -> None:
    how = ("--decision-log-sample", "0.5", "--decision-log-rows", "false")
    with recording_service(trained.models, tmp_path, *how) as service:
        for episode in range(40):
            for step in range(3):
                body = {"observation": ROW, "episode": f"e{episode}", "step": step}
                post(f"{service.url}/act", body)
    lines = lines_in(tmp_path / "record")
    heads = [line for line in lines if isinstance(line, Head)]
    assert {(head.sample, head.rows) for head in heads} == {(0.5, False)}
    found = [line for line in lines if isinstance(line, Decision)]
    assert {line.observations for line in found} == {None}
    steps: dict[Any, set[int | None]] = {}
    for line in found:
        steps.setdefault(line.episode, set()).add(line.step)
    assert all(of_episode == {0, 1, 2} for of_episode in steps.values())
    assert 10 <= len(steps) <= 30  # of 40, with probability 0.999
    assert list(read_lines(tmp_path / "record"))


def test_mistakes_in_how_to_record_end_the_start(trained: Trained, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("no key")
    run_it = ("serving", "run", "--models", str(trained.models))
    for options, message in [
        (("--decision-log", f"{file}/x"), "Not a directory"),
        (("--decision-log", f"{tmp_path}/r", "--decision-log-key", str(file)), "not a private key"),
        (("--decision-log-key", str(file)), "needs --decision-log"),
        (("--decision-log", f"{tmp_path}/r", "--decision-log-sample", "0"), "0<x<=1"),
        (("--decision-log", f"{tmp_path}/r", "--decision-log-sample", "nan"), "finite"),
    ]:
        finished = run(*run_it, *options)
        assert finished.returncode == 2
        assert message in finished.stderr
        assert finished.stderr.count("\n") == 1


def test_a_log_in_a_folder_that_went_away_goes_on_when_it_is_back(
    trained: Trained, folder: Path
) -> None:
    log = DecisionLog(Settings(models=trained.models, decision_log=folder), Metrics(), None)
    shutil.rmtree(folder)
    log.record_feedback("a", RETURN)
    time.sleep(0.2)
    folder.mkdir()
    log.close()
    assert len(list(read_lines(folder))) == 1
    with pytest.raises(LogError, match="has no decision log files"):
        list(read_lines(ROOT / "docs"))
