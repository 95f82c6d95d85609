"""What a run exports at its end: once, with the pictures that could be drawn."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.runs import Silent, new_run, small_settings
from training.errors import StorageError
from training.folder import claim, locked, read_settings
from training.processes import drawing_process
from training.run import run


def short_run(folder: Path) -> dict[str, Any]:
    """Run the settings in a folder with a budget of some updates."""
    settings = read_settings(folder)
    config = dataclasses.replace(settings.config, max_env_steps=300)
    with drawing_process() as drawing:
        summary = run(
            settings._replace(config=config),
            folder,
            Silent(),
            stop_requested=lambda: False,
            drawing=drawing,
        )
    assert summary is not None
    return summary


def test_a_run_killed_right_after_its_export_does_not_export_again(tmp_path: Path) -> None:
    folder, models = new_run(tmp_path)
    summary = short_run(folder)
    (folder / "result.json").unlink()
    (models / "novice" / "2").mkdir()  # of another program
    assert short_run(folder) == summary
    assert summary["model_dir"] == str(models / "novice" / "1")
    assert sorted(path.name for path in (models / "novice").iterdir()) == ["1", "2"]
    assert json.loads((folder / "result.json").read_text()) == summary


def test_another_run_with_the_same_seed_exports_its_own_version(tmp_path: Path) -> None:
    folder, models = new_run(tmp_path)
    short_run(folder)
    other = tmp_path / "other"
    other.mkdir()
    claim(other, small_settings(models)._replace(run_id="another run"))
    assert short_run(other)["model_dir"] == str(models / "novice" / "2")


def test_the_card_of_another_version_may_be_anything(tmp_path: Path) -> None:
    folder, models = new_run(tmp_path)
    for version, content in (("1", b"\xff{"), ("2", b"")):
        card = models / "novice" / version / "assets.extra" / "policy.json"
        card.parent.mkdir(parents=True)
        card.write_bytes(content)
    (models / "novice" / "3" / "assets.extra" / "policy.json").mkdir(parents=True)
    assert short_run(folder)["model_dir"] == str(models / "novice" / "4")


def test_what_cannot_be_drawn_is_exported_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = new_run(tmp_path)
    (folder / "episode.gif").mkdir()  # drawing fails: it cannot be written
    summary = short_run(folder)
    extra = Path(summary["model_dir"], "assets.extra")
    assert sorted(path.name for path in extra.iterdir()) == [
        "golden.json",
        "learning_curve.png",
        "policy.json",
        "tf_serving_warmup_requests",
    ]
    assert "a picture could not be drawn" in capsys.readouterr().err


def test_a_folder_of_models_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder, models = new_run(tmp_path)
    models.touch()
    with pytest.raises(StorageError, match=rf"^{models}/novice cannot be written: .*Not a dir"):
        short_run(folder)
    models.unlink()
    assert short_run(folder)["model_dir"] == f"{models}/novice/1"


def test_a_renderer_that_crashes_does_not_prevent_the_export(
    own_environments: None,  # noqa: ARG001  # a fixture
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings, folder = small_settings(tmp_path), tmp_path / "run"
    config = dataclasses.replace(settings.config, env_id="own:Crashing-v0")
    with locked(folder):
        claim(folder, settings._replace(config=config))
    assert Path(short_run(folder)["model_dir"], "assets.extra", "policy.json").exists()
    assert "the process that draws has ended" in capsys.readouterr().err
