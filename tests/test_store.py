"""The copies of versions that the workers of a service share, and the verdicts on them."""

import errno
import io
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.metrics import Metrics
from serving.policy.artefact import ArtefactError
from serving.registry import store as module
from serving.registry.store import Store
from serving.settings import Settings


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
    with pytest.raises(OSError, match="no room for another copy of a version") as full:
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


def test_a_digest_is_of_the_names_of_files_too(version: Path, folders: list[Path]) -> None:
    copies = Store(*folders)
    first = copies.copy(version, ["a"])
    (version / "a").rename(version / "b")
    assert copies.copy(version, ["b"]) != first


def test_a_file_that_became_a_link_after_it_was_listed_is_not_followed(
    version: Path, folders: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of another folder")
    (version / "a").unlink()
    (version / "a").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links") as refused:
        Store(*folders).copy(version, ["a"])
    assert refused.value.errno == errno.ELOOP
    assert not list(folders[0].iterdir())


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


def while_reading(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[], object], after: Callable[[], object]
) -> None:
    """Have files that are copied read in pieces, with something done before and after each."""

    class Slow(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            before()
            piece = super().read(size)
            after()
            return piece

    monkeypatch.setattr(module, "_PIECE_BYTES", 400)
    monkeypatch.setattr(module, "open", Slow, raising=False)


def test_a_copy_that_is_being_made_is_not_taken_for_an_old_one(
    version: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def age() -> None:
        for path in folders[0].iterdir():
            os.utime(path, (0, time.time() - 1_000))

    copies, other = Store(*folders), Store(*folders)
    while_reading(monkeypatch, lambda: other.clean_up(set()), age)
    copy = copies.path(copies.copy(version, ["a"]))
    assert (copy / "a").read_bytes() == b"x" * 1_000


def test_a_copy_that_is_removed_while_it_is_made_is_not_finished_without_what_is_gone(
    version: Path, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def remove() -> None:
        for path in folders[0].iterdir():
            if not (path / "b").exists():
                shutil.rmtree(path)

    (version / "b" / "c").mkdir(parents=True)
    (version / "b" / "c" / "d").write_bytes(b"")
    (version / "a").write_bytes(b"")
    while_reading(monkeypatch, lambda: None, remove)
    with pytest.raises(FileNotFoundError):
        Store(*folders).copy(version, ["a", "b/c/d"])
    assert not list(folders[0].iterdir())


def test_a_listing_without_room_leaves_nothing(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    Store(*folders).remember("cartpole", module.Listing(digests={1: "a"}))
    assert [list(folder.iterdir()) for folder in folders] == [[], []]


def test_a_version_that_cannot_be_copied_is_refused_once(version: Path, tmp_path: Path) -> None:
    from serving.registry.versions import Versions  # imports TensorFlow

    model = tmp_path / "models" / "cartpole"
    model.mkdir(parents=True)
    version.rename(model / "1")
    metrics, without_folder = Metrics(), Store(tmp_path / "gone")
    versions = Versions(model, Settings(models=model.parent), metrics, without_folder)
    for _ in range(3):
        versions.refresh()
    assert 'policy_refusals_total{model="cartpole"} 1.0' in metrics.text()[0].decode()
    (refused,) = versions.report(default=True).versions
    assert (refused.state, refused.reason) == (
        "refused",
        "cannot be read: No such file or directory",
    )


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
