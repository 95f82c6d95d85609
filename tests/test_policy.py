"""What TensorFlow finds wrong with a version whose files are as its card says."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.policy.artefact import ArtefactError, read
from serving.policy.savedmodel import Policy
from tests.artefacts import edit_card, edit_golden, reseal
from tests.conftest import Trained


def load(model_dir: Path) -> Policy:
    return Policy(model_dir, read(model_dir))


@pytest.fixture
def model_dir(trained: Trained, tmp_path: Path) -> Path:
    return shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "3")


def test_a_version_is_named_by_its_folder(model_dir: Path) -> None:
    assert load(model_dir).identity() == {"name": "cartpole", "version": 3}


def shift_first_value(golden: dict[str, Any]) -> None:
    golden["state_values"][0] += 0.1


def swap_logits(golden: dict[str, Any]) -> None:
    golden["action_logits"] = [row[::-1] for row in golden["action_logits"]]


def shorten_rows(golden: dict[str, Any]) -> None:
    golden["observations"] = [row[:3] for row in golden["observations"]]


def make_ragged(golden: dict[str, Any]) -> None:
    golden["observations"][0] = [0.0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shift_first_value, "its state_values are not those of assets.extra/golden.json"),
        (swap_logits, "its action_logits are not those of assets.extra/golden.json"),
        (shorten_rows, "its golden values cannot be computed"),
        (make_ragged, "its golden values cannot be computed"),
    ],
)
def test_other_golden_values_are_refused(
    model_dir: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    edit_golden(model_dir, change)
    with pytest.raises(ArtefactError, match=reason):
        load(model_dir)


def test_a_graph_that_tensorflow_cannot_read_is_refused_in_one_line(model_dir: Path) -> None:
    (model_dir / "saved_model.pb").write_bytes(b"no graph")
    reseal(model_dir)
    with pytest.raises(ArtefactError, match="TensorFlow cannot load it: ") as refused:
        load(model_dir)
    assert "\n" not in str(refused.value)


def test_a_card_about_other_observations_is_refused(model_dir: Path) -> None:
    def add_one(card: dict[str, Any]) -> None:
        for name in ("names", "seen_low", "seen_high"):
            card["observations"][name].append(card["observations"][name][0])

    edit_card(model_dir, add_one)
    with pytest.raises(ArtefactError, match=r"the inputs .*\[None, 4\].*, expected .*\[None, 5\]"):
        load(model_dir)


def test_a_card_about_other_actions_is_refused(model_dir: Path) -> None:
    edit_card(model_dir, lambda card: card["actions"]["names"].append("jump"))
    with pytest.raises(ArtefactError, match="'serving_default' has the outputs"):
        load(model_dir)


def test_a_graph_with_other_outputs_is_refused(model_dir: Path) -> None:
    module = tf.Module()
    signature = tf.function(
        lambda observations: {"actions": tf.argmax(observations, axis=1)},
        input_signature=[tf.TensorSpec([None, 4], tf.float32, "observations")],
    )
    tf.saved_model.save(module, model_dir, signatures={"serving_default": signature})
    reseal(model_dir)
    with pytest.raises(ArtefactError, match="signature 'serving_default' has the outputs"):
        load(model_dir)


def test_a_graph_without_the_replayable_signature_is_refused(model_dir: Path) -> None:
    model = tf.saved_model.load(model_dir)
    tf.saved_model.save(
        model, model_dir, signatures={"serving_default": model.signatures["serving_default"]}
    )
    reseal(model_dir)
    with pytest.raises(ArtefactError, match="it has no signature 'act'"):
        load(model_dir)


def test_a_graph_with_a_loop_decides_as_one_without(model_dir: Path) -> None:
    rows = np.array([[0.01, -0.02, 0.03, 0.04]], np.float32)
    asked = rows, np.array([0.5], np.float32), np.array([False])
    without = load(model_dir).act(*asked)
    original = tf.saved_model.load(model_dir)

    def act(observations: Any, uniforms: Any, deterministic: Any) -> Any:
        _, same = tf.while_loop(
            lambda turn, _: turn < tf.shape(observations)[0] + 3,  # only known when it runs
            lambda turn, looped: (turn + 1, looped * 1.0),
            [0, observations],
        )
        return original.signatures["act"](
            observations=same, uniforms=uniforms, deterministic=deterministic
        )

    specs = original.signatures["act"].structured_input_signature[1]
    names = ("observations", "uniforms", "deterministic")
    module = tf.Module()
    module.original = original
    signatures = {
        "serving_default": original.signatures["serving_default"],
        "act": tf.function(act, [specs[name] for name in names]),
    }
    tf.saved_model.save(module, model_dir, signatures=signatures)
    reseal(model_dir)
    for one, other in zip(load(model_dir).act(*asked), without, strict=True):
        np.testing.assert_array_equal(one, other)
