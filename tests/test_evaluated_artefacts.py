"""What `evaluate` and `render` read of a version, whoever wrote its files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.artefacts import CARD, GOLDEN, edit, edit_card
from tests.conftest import Trained, run
from training.artefact import ArtefactError, load

WEIGHTS = "variables/variables.data-00000-of-00001"


@pytest.fixture
def version(trained: Trained, tmp_path: Path) -> Path:
    return shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "1")


def test_nothing_of_the_graph_is_needed_or_run(version: Path) -> None:
    (version / "saved_model.pb").unlink()
    finished = run("training", "evaluate", str(version), "--episodes", "3", "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["greedy"]["mean"] == 500


def test_an_environment_cannot_name_a_module_to_import(version: Path, tmp_path: Path) -> None:
    edit_card(version, lambda card: card.update(environment="this:CartPole-v1"))
    for command in (["evaluate"], ["render", "--output", str(tmp_path / "episode.gif")]):
        finished = run("training", *command, str(version))
        assert finished.returncode == 2
        assert "imported only with --allow-module this\n" in finished.stderr
        assert finished.stdout == ""  # that module prints a poem when it is imported


def test_an_environment_of_another_size_is_a_mistake(version: Path) -> None:
    edit_card(version, lambda card: card.update(environment="Acrobot-v1"))
    finished = run("training", "evaluate", str(version))
    assert finished.returncode == 2
    assert "is not a policy for Acrobot-v1, as its card says" in finished.stderr


def one_row_for_all(golden: dict[str, Any]) -> None:
    """As all observations are the same, each has the logits of the one that is left."""
    rows = len(golden["observations"])
    golden.update(
        observations=golden["observations"][:1] * rows,
        state_values=golden["state_values"][:1] * rows,
        action_logits=golden["action_logits"][:1],
    )


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda version: (version / CARD).unlink(), "No such file"),
        (lambda version: (version / CARD).write_text("[" * 200_000), "Expected `object`"),
        (lambda version: (version / CARD).write_bytes(b"\xff"), "malformed"),
        (lambda version: (version / CARD).write_text("[]"), "Expected `object`"),
        (lambda version: edit(version / CARD, lambda card: card.update(training={})), "config"),
        (lambda version: (version / GOLDEN).write_text("{}"), "observations"),
        (
            lambda version: edit(
                version / GOLDEN,
                lambda golden: golden.update(state_values=[0] * len(golden["state_values"])),
            ),
            "state_values",
        ),
        (
            lambda version: edit(
                version / GOLDEN, lambda golden: golden.update(observations=[[0, 0]])
            ),
            "matmul",
        ),
        (
            lambda version: edit(version / GOLDEN, lambda golden: golden.update(state_values=[])),
            "state_values",
        ),
        (lambda version: edit(version / GOLDEN, one_row_for_all), "action_logits"),
        (lambda version: (version / WEIGHTS).write_bytes(b""), "Read less bytes"),
        (lambda version: (version / WEIGHTS).unlink(), "variables"),
    ],
)
def test_what_is_not_as_training_writes_it_is_refused(
    version: Path, damage: Any, reason: str
) -> None:
    damage(version)
    with pytest.raises(ArtefactError, match=reason):
        load(version)
