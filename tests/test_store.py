"""The copies of versions that the workers of a service share, and the verdicts on them."""

import errno
import os
import time
from pathlib import Path

import pytest

from serving.policy.artefact import ArtefactError
from serving.registry import store as module
from serving.registry.store import Store


@pytest.fixture
def version(tmp_path: Path) -> Path:
    folder = tmp_path / "1"
    folder.mkdir()
    (folder / "a").write_bytes(b"x" * 1_000)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "memory", tmp_path / "disk"]
    for folder in made:
        folder.mkdir()
    return made


def refuse(_copy: Path) -> None:
    raise ArtefactError("it is bad")


def test_a_folder_takes_a_bounded_number_of_bytes_and_the_next_one_the_rest(
    version: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FOLDER_BYTES", 1_500)
    copies = Store(*folders)
    first = copies.path(copies.copy(version, ["a"]))
    (version / "a").write_bytes(b"y" * 1_000)
    second = copies.path(copies.copy(version, ["a"]))
    assert [first.parent, second.parent] == folders
    (version / "a").write_bytes(b"z" * 1_000)
    with pytest.raises(OSError, match="no room among the copies of others") as full:
        copies.copy(version, ["a"])
    assert full.value.errno == errno.ENOSPC
    assert [len(list(folder.iterdir())) for folder in folders] == [1, 1]


def test_what_is_refused_is_told_to_all_and_its_copy_is_removed(
    version: Path, folders: list[Path]
) -> None:
    one, other = Store(*folders), Store(*folders)
    digest = one.copy(version, ["a"])
    assert other.verdict(digest) is None
    one.judge(digest, refuse)
    assert other.verdict(digest) == "it is bad"
    assert not one.path(digest).exists()
    # A worker that has not heard of it copies it again, and does not examine it.
    assert other.copy(version, ["a"]) == digest
    other.judge(digest, lambda _: pytest.fail("examined twice"))
    assert other.verdict(digest) == "it is bad"


def test_an_examination_that_fails_is_no_verdict(version: Path, folders: list[Path]) -> None:
    copies = Store(*folders)
    digest = copies.copy(version, ["a"])

    def fail(_copy: Path) -> None:
        raise OSError("no process can be started")

    with pytest.raises(OSError, match="no process"):
        copies.judge(digest, fail)
    assert copies.verdict(digest) is None
    copies.judge(digest, lambda _: None)
    assert copies.verdict(digest) == ""


def test_a_verdict_that_a_killed_process_has_begun_is_none(
    version: Path, folders: list[Path]
) -> None:
    copies = Store(*folders)
    digest = copies.copy(version, ["a"])
    (folders[0] / f"{digest}.verdict").write_text('"it i')
    assert copies.verdict(digest) is None
    copies.judge(digest, refuse)
    assert copies.verdict(digest) == "it is bad"


def test_a_listing_without_room_leaves_nothing(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    Store(*folders).remember("cartpole", module.Listing(digests={1: "a"}))
    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_what_nobody_needs_is_removed_when_it_is_old(version: Path, folders: list[Path]) -> None:
    copies = Store(*folders)
    digests = []
    for content in ("needed", "not needed", "refused", "forgotten"):
        (version / "a").write_text(content)
        digests.append(copies.copy(version, ["a"]))
    needed, _, refused, forgotten = digests
    copies.judge(needed, lambda _: None)
    for digest in (refused, forgotten):
        copies.judge(digest, refuse)
    (version / "a").write_text("refused")
    copies.copy(version, ["a"])  # by another worker
    copies.remember("cartpole", module.Listing(digests={1: needed, 2: refused}))
    before = {path.name for path in folders[0].iterdir()}
    copies.clean_up({needed, refused})
    assert {path.name for path in folders[0].iterdir()} == before
    for path in folders[0].iterdir():
        os.utime(path, (0, time.time() - 1_000))
    copies.clean_up({needed, refused})
    left = {path.name for path in folders[0].iterdir() if path.suffix != ".listing"}
    assert left == {needed, f"{needed}.verdict", f"{refused}.verdict"}
    assert copies.recall("cartpole").digests == {1: needed, 2: refused}
