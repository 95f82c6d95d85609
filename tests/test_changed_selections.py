"""The selection's file while others change it, without room, and where it is not a file."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.registry.selection import (
    Selection,
    SelectionError,
    locked,
    read_selection,
    write_selection,
)
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.artefacts import publish
from tests.conftest import ENVIRONMENT, ROOT, Trained
from tests.test_promotion import lay_out, mistake, selected


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """Versions 1, 2 and 4 are good; 3 is damaged, 5 not solved."""
    return lay_out(trained, tmp_path)


@pytest.mark.parametrize(
    ("arguments", "before"),
    [
        (["promote", "4"], '{"serve":2}'),
        (["promote", "4"], "not a selection"),
        (["promote", "4", "--label", "b"], None),
        (["rollback"], '{"serve":2}'),
    ],
)
def test_a_change_that_was_made_while_a_command_examines_is_not_undone(
    models: Path,
    trials: Trials,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    before: str | None,
) -> None:
    folder = models / "cartpole"
    if before is not None:
        (folder / "serve.json").write_text(before)
    other = Selection("newest", {"a": 1})

    @contextmanager
    def meanwhile() -> Iterator[Trials]:
        yield trials
        write_selection(folder, other)

    monkeypatch.setattr("serving.registry.promotion.Trials", meanwhile)
    told = mistake(models, *arguments)
    assert told.endswith("serve.json was changed meanwhile: check it and try again")
    assert read_selection(folder) == other


def test_what_is_better_than_another_served_version_is_not_promoted(
    models: Path, trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def in_this_process() -> Iterator[Trials]:
        yield trials

    def find_better(*_: object) -> None:  # the comparison, which takes seconds of a real log
        write_selection(models / "cartpole", Selection(1))

    monkeypatch.setattr("serving.registry.promotion.Trials", in_this_process)
    monkeypatch.setattr("serving.version_commands.require_better", find_better)
    arguments = ("promote", "4", "--if-better", "--log", str(tmp_path))
    assert "was changed meanwhile" in mistake(models, *arguments)
    assert selected(models)["serve"] == 1


def test_of_commands_at_once_each_that_succeeds_has_its_change(models: Path) -> None:
    labels = ("a", "b")
    command = (sys.executable, "-m", "serving", "promote", "2", "--models", str(models))
    started = {
        label: subprocess.Popen(
            [*command, "--label", label], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE
        )
        for label in labels
    }
    told = {label: process.communicate()[1].decode() for label, process in started.items()}
    statuses = {label: process.returncode for label, process in started.items()}
    done = {label for label in labels if statuses[label] == 0}
    assert done
    assert selected(models)["labels"] == dict.fromkeys(done, 2)
    for label in set(labels) - done:
        assert (statuses[label], told[label].count("\n")) == (2, 1)
        assert "was changed meanwhile" in told[label]


def test_loading_and_unloading_keep_what_others_change(tmp_path: Path, trials: Trials) -> None:
    folder = tmp_path / "cartpole"
    folder.mkdir()
    repository = Repository(Settings(models=tmp_path), Metrics(), trials)

    def label(worker: int) -> None:
        for number in range(40):
            with locked(folder):
                known = read_selection(folder)
                name = f"label_{worker}_{number}"
                write_selection(folder, replace(known, labels={**known.labels, name: 1}))

    threads = [threading.Thread(target=label, args=(worker,)) for worker in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        repository.select("cartpole", "nothing")
        repository.select("cartpole", "newest")
    assert len(read_selection(folder).labels) == 80
    assert read_selection(folder).serve == "newest"


def test_without_room_nothing_is_left_and_the_selection_stays(models: Path) -> None:
    folder = models / "cartpole"
    write_selection(folder, Selection(2))
    before = sorted(folder.iterdir())
    command = (sys.executable, "-m", "serving", "promote", "--models", str(models))
    shell = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh")
    finished = subprocess.run(
        [*shell, *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    expected = f"Error: {folder}/serve.json cannot be written: File too large\n"
    assert (finished.returncode, finished.stdout, finished.stderr) == (2, "", expected)
    assert sorted(folder.iterdir()) == before
    assert read_selection(folder) == Selection(2)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_refused_at_once_and_left_closed(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "serve.json"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    else:
        file.mkdir()
    with pytest.raises(SelectionError, match=r"serve\.json"):
        read_selection(tmp_path)
    opened = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(SelectionError):
            read_selection(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text('{"serve": 3}')
    (tmp_path / "serve.json").symlink_to("elsewhere")
    assert read_selection(tmp_path) == Selection(3)


def test_promote_replaces_a_pipe(models: Path) -> None:
    os.mkfifo(models / "cartpole" / "serve.json")
    command = (sys.executable, "-m", "serving", "promote", "--models", str(models))
    finished = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == 0, finished.stderr
    assert "replaced what was invalid: " in finished.stdout
    assert json.loads((models / "cartpole" / "serve.json").read_text())["serve"] == "newest"


def test_a_label_of_a_deleted_version_is_told_and_counts_once(
    trained: Trained, tmp_path: Path, trials: Trials
) -> None:
    folder = tmp_path / "cartpole"
    folder.mkdir()
    publish(trained.model_dir, folder / "1")
    write_selection(folder, Selection(1, {"old": 7}))
    metrics = Metrics()
    repository = Repository(Settings(models=tmp_path), metrics, trials)
    repository.refresh()

    def told() -> list[tuple[int, str, str]]:
        versions = repository.report("cartpole").versions
        return [(one.version, one.state, one.reason) for one in versions]

    served = (1, "served", "version 1 is selected")
    missing = (7, "refused", "it is not there")
    assert told() == [missing, served]
    publish(trained.model_dir, folder / "2")
    repository.refresh()
    waiting = (2, "waiting", "not selected: version 1 is selected")
    assert told() == [missing, waiting, served]
    assert 'policy_refusals_total{model="cartpole"} 1.0' in metrics.text()[0].decode()
