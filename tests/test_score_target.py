"""Where `score` writes: through links, with the mode of what was there, into regular files only."""

import os
import stat
from pathlib import Path

import pytest

from serving.score.formats import open_target, require_formats
from serving.score.source import ScoreError

HEAD = "action,action_logit_0,action_probability_0,log_probability,state_value\n"


def write_nothing(path: Path) -> None:
    """Write decisions about no rows, of a policy with one action."""
    with open_target(path) as begin:
        begin(1).finish()


@pytest.mark.parametrize("before", [None, "before"])
def test_a_link_stays_and_its_file_is_written(tmp_path: Path, before: str | None) -> None:
    # The name that is given says the format, whatever the file is called.
    linked, link = tmp_path / "data" / "latest", tmp_path / "out.csv"
    linked.parent.mkdir()
    if before:
        linked.write_text(before)
    link.symlink_to("data/latest")
    write_nothing(link)
    assert link.readlink() == Path("data/latest")
    assert linked.read_text() == HEAD
    assert list(linked.parent.iterdir()) == [linked]


@pytest.mark.parametrize("mode", [0o600, 0o444, 0o664])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")
    target.chmod(mode)
    write_nothing(target)
    assert target.read_text() == HEAD
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_results_are_synced_to_disk_before_they_take_the_place_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")
    synced: list[str] = []

    def fsync(_: int) -> None:
        assert target.read_text() == "before"
        (written,) = tmp_path.glob(".writing-*")
        synced.append(written.read_text())

    monkeypatch.setattr(os, "fsync", fsync)
    write_nothing(target)
    assert synced == [target.read_text()] == [HEAD]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    source, pipe, device = (tmp_path / name for name in ("in.csv", "pipe.csv", "device.csv"))
    source.touch()
    os.mkfifo(pipe)
    device.symlink_to("/dev/null")
    for target in (pipe, device):
        with pytest.raises(ScoreError) as error:
            require_formats(source, target)
        assert str(error.value) == f"{target}: it is not a regular file"
    assert pipe.is_fifo()
