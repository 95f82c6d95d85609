"""`score` has to do with the version that is served alone."""

import json
from pathlib import Path

import pytest

from serving.registry.store import Store
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.artefacts import edit_card, publish, unsolve
from tests.conftest import Trained
from tests.test_score import served


def test_canaries_shadows_and_labelled_versions_are_not_even_copied(
    trained: Trained, trials: Trials, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, copies = tmp_path / "models" / "cartpole", tmp_path / "copies"
    publish(trained.model_dir, model / "1")
    publish(trained.model_dir, model / "2", unsolve)
    publish(trained.model_dir, model / "3", lambda folder: edit_card(folder, another_day))
    canary, missing = {"version": 2, "share": 0.1}, {"missing": 9}
    selection = {"serve": 1, "canaries": [canary], "shadow": 3, "labels": missing}
    (model / "serve.json").write_text(json.dumps(selection))
    copies.mkdir()
    policy = served(Settings(models=model.parent), Store(copies), trials)
    assert policy.version == 1
    assert len([path for path in copies.iterdir() if path.is_dir()]) == 1
    assert "refused" not in caplog.text


def another_day(card: dict[str, object]) -> None:
    card["created"] = "another day"
