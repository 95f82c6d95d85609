"""Sources that are away, slow, or say what is not so."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.registry import source
from serving.registry.trial import Trials
from tests.artefacts import CARD
from tests.conftest import ENVIRONMENT, Trained, run
from tests.pull.sources import KEY, S3, SOURCE, Looks, Rclone, found


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([("x/../../../../../escaped", 3)], "invalid path"),
        ([("//x", 3)], "empty path segment"),
        ([(r"a\b", 3)], r"the source lists an unsafe path 'a\\b'"),
        ([("a b", 3)], "the source lists an unsafe path 'a b'"),
        ([(".hidden", 3)], "the source lists an unsafe path '.hidden'"),
        ([("x/" * 600 + "x", 3)], "the source lists an unsafe path 'x/x/"),
        ([("x", 3), ("x", 3)], "the source lists a file twice"),
        ([("x", 2)], "x does not have the 2 bytes that the source lists"),
        ([("x", 4)], "x does not have the 4 bytes that the source lists"),
        ([("x", 0)], "x does not have the 0 bytes that the source lists"),
        ([("x", 2**30 + 1)], "it has more than 1000 files or 1073741824 bytes"),
        ([(f"x{n}", 0) for n in range(1001)], "it has more than 1000 files or 1073741824"),
        ([("x", -1)], "invalid list response"),
        ([("x", 3)], f"{CARD} is missing"),
    ],
)
def test_a_source_that_lies_changes_nothing_that_is_served(
    trained: Trained,
    fake: S3,
    tmp_path: Path,
    look: Looks,
    listed: list[tuple[str, int]],
    reason: str,
) -> None:
    fake.add("cartpole/1", trained.model_dir)
    assert look() == (["pulled cartpole version 1"], [])
    before = sorted(tmp_path.rglob("*"))
    fake.listed += [(f"cartpole/2/{key}", size) for key, size in listed]
    reported, (trouble,) = look()
    assert (reported, reason in trouble) == ([], True), trouble
    assert look() == ([], [])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_absolute_key_and_other_names_are_ignored(
    trained: Trained, fake: S3, models: Path, look: Looks
) -> None:
    fake.add("cartpole/1", trained.model_dir)
    for key in ("/etc/passwd", "-/-/-/x", "cart pole/4/x", ".x/5/x", "cartpole/06/x", "7/x"):
        fake.listed.append((key, 3))
    # Some tools make an object for each folder.
    fake.listed += [("cartpole/", 0), ("cartpole/1/", 0), ("cartpole/1/variables/", 0)]
    assert look() == (["pulled cartpole version 1"], [])
    assert found(models) == ["cartpole/1"]
    # A key outside of the prefix is read below it.
    fake.listed.append(("/etc/3/x", 3))
    assert look() == ([], [f"etc version 3 is not pulled: {CARD} is missing"])


def test_a_file_that_is_longer_than_listed_is_not_read_to_its_end(fake: S3, look: Looks) -> None:
    megabytes = 0

    def count(content: bytes) -> Iterator[bytes]:
        nonlocal megabytes
        for start in range(0, len(content), 2**20):
            yield content[start : start + 2**20]
            megabytes += 1

    fake.listed = [("cartpole/1/x", 3)]
    fake.content = {"cartpole/1/x": bytes(64 * 2**20)}
    fake.pieces = count
    _, (trouble,) = look()
    assert "x does not have the 3 bytes that the source lists" in trouble
    assert megabytes < 32


def test_a_listing_without_end_is_not_read_to_its_end(
    fake: S3, look: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_OBJECTS", 1_000)
    fake.listed = [(f"cartpole/{number}/x", 3) for number in range(1_001)]
    _, (trouble,) = look()
    assert "it lists more than 1000 objects" in trouble


def test_a_source_that_is_away_is_logged_once_and_read_when_it_is_back(
    trained: Trained, bucket: Rclone, models: Path, look: Looks
) -> None:
    shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
    bucket.stop()
    reported, (trouble,) = look()
    assert reported == []
    address = f"GET http://127.0.0.1:{bucket.port}/bucket: HTTP error: error sending request"
    assert trouble == f"cannot pull from {SOURCE} into {models}: {address}"
    assert look() == look() == ([], [])
    bucket.start()
    assert look() == (["pulled cartpole version 1"], [])
    bucket.stop()
    assert look() == ([], [trouble])
    bucket.start()


@pytest.mark.usefixtures("bucket")
def test_wrong_credentials_are_said_without_the_credentials(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "AWS_SECRET_ACCESS_KEY", "another-secret")
    finished = run("serving", "pull", "--source", SOURCE, "--models", str(models))
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "403 Forbidden, SignatureDoesNotMatch" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not re.search(f"another-secret|{KEY}|Signature=", finished.stderr)


def test_a_source_that_does_not_answer_is_given_up(
    fake: S3,
    models: Path,
    trials: Trials,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source, "READ_SECONDS", 0.2)
    look = Looks(models, trials, caplog)
    go_on = threading.Event()
    fake.before_answer = lambda _: go_on.wait(30)
    started = time.monotonic()
    _, (trouble,) = look()
    assert time.monotonic() - started < 5
    assert "HTTP error" in trouble
    go_on.set()


def test_a_version_that_arrives_too_slowly_is_given_up_and_tried_again(
    trained: Trained, fake: S3, look: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_SECONDS", 0.5)
    fake.add("cartpole/1", trained.model_dir)
    fake.before_answer = lambda key: time.sleep(0.2 if key else 0)
    trouble = "cartpole version 1 is not pulled: it takes longer than 0.5 seconds"
    assert look() == ([], [trouble])
    fake.before_answer = lambda _: None
    assert look() == (["pulled cartpole version 1"], [])
