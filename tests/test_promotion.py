"""`promote` and `rollback`: what they write, what they refuse, and that running services follow."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import urllib3
from click.testing import CliRunner

from serving.cli import commands
from serving.client import PolicyClient
from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.registry.selection import Selection, SelectionError, read_selection, write_selection
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.artefacts import publish, unsolve
from tests.conftest import Trained, run, running_service, wait_until
from tests.signatures import mistake_here
from tests.test_act import ROW
from tests.test_metrics_endpoint import Running
from tests.test_versions import damage_graph


@pytest.fixture
def models(trained: Trained, tmp_path: Path) -> Path:
    """Versions 1, 2 and 4 are good; 3 is damaged, 5 not solved."""
    return lay_out(trained, tmp_path)


def lay_out(trained: Trained, folder: Path) -> Path:
    models = shutil.copytree(trained.models, folder / "models")
    for version in (2, 4):
        publish(trained.model_dir, models / "cartpole" / str(version))
    publish(trained.model_dir, models / "cartpole" / "3", damage_graph)
    publish(trained.model_dir, models / "cartpole" / "5", unsolve)
    return models


@pytest.fixture(autouse=True)
def _trials_of_the_session(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process, which may have run TensorFlow, take the fork server of before."""
    monkeypatch.setattr("serving.registry.promotion.Trials", lambda: nullcontext(trials))


def say(models: Path, *arguments: str) -> str:
    """The standard output of a command that succeeds, in this process."""
    finished = CliRunner().invoke(commands, [*arguments, "--models", str(models)])
    assert (finished.exit_code, finished.stderr) == (0, ""), finished.output
    return finished.stdout


def mistake(models: Path, *arguments: str) -> str:
    return mistake_here(commands, *arguments, "--models", str(models))


def selected(models: Path) -> Any:
    return json.loads((models / "cartpole" / "serve.json").read_text())


def test_promote_writes_the_selection_and_reports_it(models: Path) -> None:
    refused = run("serving", "promote", "3", "--models", str(models))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("Error: ")
    assert refused.stderr.count("\n") == 1
    assert not (models / "cartpole" / "serve.json").exists()
    promoted = run("serving", "promote", "2", "--models", str(models))
    assert (promoted.returncode, promoted.stderr) == (0, "")
    assert promoted.stdout == "cartpole: version 2 is served from now on\n"
    assert selected(models) == {"serve": 2, "labels": {}}
    printed = say(models, "promote", "1", "--label", "canary")
    assert printed == "cartpole: version 1 is labelled canary\n"
    assert selected(models) == {"serve": 2, "labels": {"canary": 1}}
    assert say(models, "promote") == "cartpole: the newest version is served from now on\n"
    assert selected(models) == {"serve": "newest", "labels": {"canary": 1}}
    assert [path.name for path in (models / "cartpole").glob(".*")] == []


def test_rollback_goes_to_the_good_version_before_until_there_is_none(models: Path) -> None:
    # 5 is not solved, so 4 is what is served; 3 is damaged.
    assert say(models, "rollback") == ("cartpole: version 2 is served from now on instead of 4\n")
    assert say(models, "rollback") == ("cartpole: version 1 is served from now on instead of 2\n")
    assert "cartpole has no good version before 1" in mistake(models, "rollback")
    assert selected(models)["serve"] == 1


def test_rollback_of_an_unloaded_model_serves_nothing(models: Path) -> None:
    write_selection(models / "cartpole", Selection("nothing"))
    assert "cartpole is unloaded" in mistake(models, "rollback")
    assert selected(models)["serve"] == "nothing"


def test_rollback_to_the_shadow_ends_it(models: Path) -> None:
    write_selection(models / "cartpole", Selection(4, shadow=2))
    assert say(models, "rollback") == (
        "cartpole: version 2 is served from now on instead of 4; no longer the shadow: 2\n"
    )
    assert "shadow" not in selected(models)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["promote", "9"], "cartpole has no version 9; versions: 5, 4, 3, 2, 1; without a"),
        (["promote", "3"], "saved_model.pb does not match its checksum on the card"),
        (["promote", "5"], "its card says that it is not solved"),
        (["promote", "4", "--min-return", "501"], "its greedy mean return 500 is below 501"),
        (["promote", "--label", "canary"], "a label needs a version"),
        (["promote", "4", "--label", "stable"], "'stable' is the label of the served version"),
        (["promote", "4", "--label", "a/b"], "matching regex"),
        (["promote", "4", "--label", "a\n"], "matching regex"),
        (["promote", "-1"], "-1"),
        (["promote", "latest"], "cartpole has no version latest; versions: 5, 4, 3, 2, 1;"),
        (["promote", "04"], "cartpole has no version 04;"),
        (["promote", "4", "--name", "../cartpole"], "'../cartpole' is not a name"),
        (["promote", "--name", "none"], "none/serve.json cannot be written: No such file"),
        (["rollback", "--name", "none"], "none has no good version"),
    ],
)
def test_what_cannot_be_served_is_not_selected(
    models: Path, arguments: list[str], message: str
) -> None:
    assert message in mistake(models, *arguments)
    assert not (models / "cartpole" / "serve.json").exists()


def test_an_invalid_selection_file_is_reported_and_promote_mends_it(models: Path) -> None:
    file = models / "cartpole" / "serve.json"
    for content in ("", "{", '{"serve": -1}', '{"serve": "best"}', '{"sreve": 1}', "\xff"):
        file.write_text(content, encoding="latin-1")
        assert "serve.json" in mistake(models, "rollback")
        assert file.read_text(encoding="latin-1") == content
    assert "replaced what was invalid: " in say(models, "promote", "2")
    assert selected(models) == {"serve": 2, "labels": {}}


def test_the_label_of_the_served_version_is_nobody_elses_in_a_selection_file(
    tmp_path: Path,
) -> None:
    (tmp_path / "serve.json").write_text('{"serve": 1, "labels": {"stable": 2, "next": 3}}')
    assert read_selection(tmp_path) == Selection(1, labels={"next": 3})


def test_a_reader_never_sees_a_half_written_selection(tmp_path: Path) -> None:
    selections = [Selection(serve=version, labels={"a" * 200: version}) for version in (1, 2)]
    write_selection(tmp_path, selections[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for selection in selections:
                write_selection(tmp_path, selection)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [read_selection(tmp_path) for _ in range(2_000)]
    finally:
        stop.set()
        writer.join()
    assert all(selection in selections for selection in seen)


def test_an_invalid_selection_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SelectionError):
        write_selection(tmp_path, Selection(serve=-1))
    assert list(tmp_path.iterdir()) == []


def test_the_selection_is_complete_and_synced_to_disk_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the fsync, a power failure after the rename can leave an empty serve.json.
    calls: list[str] = []

    def fsync(descriptor: int) -> None:
        calls.append(f"fsync {os.pread(descriptor, 100, 0).decode()}")

    def replace(source: str, target: Path) -> None:
        calls.append(f"replace {target.name} {Path(source).read_text()}")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_selection(tmp_path, Selection(serve=3))
    content = '{"serve":3,"labels":{}}\n'
    assert calls == [f"fsync {content}", f"replace serve.json {content}"]


def test_the_selection_can_be_read_by_a_service_of_another_user(tmp_path: Path) -> None:
    write_selection(tmp_path, Selection(serve=3))
    assert (tmp_path / "serve.json").stat().st_mode & 0o777 == 0o644


class Followed(Running):
    """A running service and its models folder, to check which version it serves."""

    def answering(self) -> int:
        version: int = self.act([ROW])["model"]["version"]
        return version

    def follows(self, version: int) -> None:
        """Wait until every worker has the version."""
        wait_until(lambda: list(self.versions().values()) == [version, version])
        assert {self.answering() for _ in range(20)} == {version}

    def reasons(self) -> dict[int, tuple[str, str]]:
        (model,) = self.send("GET", "/models").json()["models"]
        return {v["version"]: (v["state"], v["reason"]) for v in model["versions"]}


@pytest.fixture(scope="module")
def followed(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    folder = tmp_path_factory.mktemp("promotion")
    models = lay_out(trained, folder)
    with running_service(models, folder / "log", "--poll-seconds", "0.1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        yield Followed(service, models)


def test_every_worker_follows_without_a_restart(followed: Followed) -> None:
    say(followed.models, "promote")
    followed.follows(4)
    workers = followed.scrape()[("policy_worker_starts_total",)]
    say(followed.models, "rollback")
    followed.follows(2)
    assert followed.reasons()[4] == ("waiting", "not selected: version 2 is selected")
    assert followed.reasons()[2] == ("served", "version 2 is selected")
    say(followed.models, "promote", "1")
    followed.follows(1)
    say(followed.models, "promote")
    followed.follows(4)
    assert followed.scrape()[("policy_worker_starts_total",)] == workers


def test_a_labelled_version_is_kept_loaded_beside_the_served_one(followed: Followed) -> None:
    say(followed.models, "promote", "2")
    followed.follows(2)
    say(followed.models, "promote", "4", "--label", "canary")
    path = "/v1/models/cartpole/labels/canary:predict"

    def answered() -> list[int]:
        return [followed.send("POST", path, json={"instances": [ROW]}).status for _ in range(20)]

    wait_until(lambda: set(answered()) == {200})
    followed.follows(2)
    assert followed.reasons()[4] == ("labelled", "labelled canary")


def wait_for_lines(log: Path, text: str, count: int) -> None:
    wait_until(lambda: log.read_text().count(text) >= count)


def test_a_selection_that_cannot_be_read_changes_nothing(followed: Followed) -> None:
    say(followed.models, "promote", "4")
    followed.follows(4)
    text = "version selection unchanged"
    count = followed.service.log.read_text().count(text)
    file = followed.models / "cartpole" / "serve.json"
    file.write_text("nonsense")
    wait_for_lines(followed.service.log, text, count + 2)
    assert {followed.answering() for _ in range(20)} == {4}
    # Nor does one that nothing can be read from: its writer never comes.
    file.unlink()
    os.mkfifo(file)
    wait_for_lines(followed.service.log, "serve.json is not a file", 2)
    assert followed.reasons()[4][0] == "served"
    say(followed.models, "promote", "4")


@pytest.mark.parametrize(
    ("version", "reason"),
    [(3, "version 3: saved_model.pb does not match its"), (77, "version 77: it is not there")],
)
def test_a_selected_version_that_cannot_be_served_is_told_by_every_worker(
    followed: Followed, version: int, reason: str
) -> None:
    (followed.models / "cartpole" / "serve.json").write_text(f'{{"serve": {version}}}')
    ready = f"{followed.service.url}/health/ready"

    def are_told() -> bool:
        answers = [urllib3.request("GET", ready, retries=False) for _ in range(10)]
        return all(one.status == 503 and reason in one.json()["detail"] for one in answers)

    wait_until(are_told)
    say(followed.models, "promote", "4")
    followed.follows(4)


def test_the_selection_survives_a_restart_and_a_pin_overrides_it(
    models: Path, tmp_path: Path, trials: Trials
) -> None:
    say(models, "promote", "2")
    with running_service(models, tmp_path / "log", "--workers", "1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        answer = urllib3.request("GET", f"{service.url}/health/ready", retries=False)
        assert answer.json()["model"]["version"] == 2
    pinned = Repository(Settings(models=models, pin=1), Metrics(), trials)
    pinned.refresh()
    assert pinned.policy().version == 1
    assert pinned.report("cartpole").versions[-1].reason == "version 1 is selected"
    assert selected(models)["serve"] == 2
