"""`promote --if-better`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from serving.cli import commands
from tests.compare.logs import canary, write_log
from tests.signatures import mistake_here


def promoted(models: Path, log: Path, *options: str) -> tuple[int, str]:
    asked = ["promote", *options, "--if-better", "--log", str(log), "--models", str(models)]
    finished = CliRunner().invoke(commands, asked)
    return finished.exit_code, finished.stdout


def test_a_version_is_promoted_if_it_is_better(models: Path, tmp_path: Path) -> None:
    (models / "cartpole" / "serve.json").write_text('{"serve": 1}')
    before = (models / "cartpole" / "serve.json").read_bytes()
    for name, better, answer in (("worse", -60, "worse"), ("equal", 0, "not yet known")):
        log = write_log(tmp_path / name, canary(models, better))
        status, printed = promoted(models, log, "2")
        assert status == 1
        assert printed.count("\n") == 1
        start = f"cartpole: version 2 is not promoted; better than 1: {answer}"
        assert printed.startswith(start)
        assert (models / "cartpole" / "serve.json").read_bytes() == before
    log = write_log(tmp_path / "better", canary(models, 60))
    status, printed = promoted(models, log, "2")
    assert (status, printed) == (0, "cartpole: version 2 is served from now on\n")
    assert json.loads((models / "cartpole" / "serve.json").read_bytes())["serve"] == 2


def test_if_better_without_what_it_needs_is_a_mistake(models: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", canary(models, 60))
    where = ("--models", str(models))
    needs = "--if-better needs a version and --log"
    assert needs in mistake_here(commands, "promote", "2", "--if-better", *where)
    given = ("--if-better", "--log", str(log), *where)
    assert needs in mistake_here(commands, "promote", *given)
    # The newest that is good is served.
    assert "cannot be compared with itself" in mistake_here(commands, "promote", "4", *given)
    (models / "cartpole" / "serve.json").write_text('{"serve": "nothing"}')
    assert "no version is served" in mistake_here(commands, "promote", "2", *given)


def test_the_log_is_where_the_service_writes_it(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "cartpole" / "serve.json").write_text('{"serve": 1}')
    log = write_log(tmp_path / "log", canary(models, 60))
    monkeypatch.setenv("SERVING_DECISION_LOG", str(log))
    asked = ["promote", "2", "--if-better", "--models", str(models)]
    assert CliRunner().invoke(commands, asked).exit_code == 0
