"""What the service refuses to load, and why."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.policy import Policy, PolicyLoadError
from tests.conftest import Trained


def edit(model_dir: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    path = model_dir / "assets.extra" / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shift_first_value(golden: dict[str, Any]) -> None:
    golden["state_values"][0] += 0.1


def swap_logits(golden: dict[str, Any]) -> None:
    golden["action_logits"] = [row[::-1] for row in golden["action_logits"]]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "saved_model.pb").write_bytes(b"no graph"), "saved_model.pb"),
        (lambda folder: (folder / "saved_model.pb").unlink(), "saved_model.pb"),
        (lambda folder: shutil.rmtree(folder / "variables"), "variables"),
        (lambda folder: (folder / "assets.extra" / "policy.json").unlink(), "policy.json"),
        (lambda folder: (folder / "assets.extra" / "golden.json").unlink(), "golden.json"),
        (lambda folder: edit(folder, "policy.json", dict.clear), "environment"),
        (lambda folder: edit(folder, "golden.json", shift_first_value), "its state_values are not"),
        (lambda folder: edit(folder, "golden.json", swap_logits), "its action_logits are not"),
    ],
)
def test_a_damaged_version_is_refused_in_one_line_with_the_reason(
    trained: Trained, tmp_path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    model_dir = shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "3")
    assert Policy(model_dir).identity() == {"name": "cartpole", "version": 3}
    damage(model_dir)
    with pytest.raises(PolicyLoadError) as refusal:
        Policy(model_dir)
    message = str(refusal.value)
    assert message.startswith(f"{model_dir}: ")
    assert reason in message
    assert "\n" not in message
