"""Versions that declare the designed outputs, and compute others for their golden observations."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from serving.policy.artefact import ArtefactError
from tests.artefacts import reseal
from tests.conftest import Trained
from tests.test_policy import edit_graph, load


@pytest.fixture
def model_dir(trained: Trained, tmp_path: Path) -> Path:
    return shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "3")


def replace_output(model_dir: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Have the signature `act` answer `change(output)` in the place of an output."""
    original = tf.saved_model.load(model_dir)

    def act(**inputs: Any) -> Any:
        outputs = original.signatures["act"](**inputs)
        return outputs | {name: change(outputs[name])}

    module = tf.Module()
    module.original = original
    specs = original.signatures["act"].structured_input_signature[1]
    signatures = {
        "serving_default": original.signatures["serving_default"],
        "act": tf.function(act).get_concrete_function(**specs),
    }
    tf.saved_model.save(module, model_dir, signatures=signatures)
    reseal(model_dir)


def test_the_same_output_is_accepted_so_the_tests_below_refuse_for_their_own_reason(
    model_dir: Path,
) -> None:
    replace_output(model_dir, "actions", lambda actions: actions * 1)
    load(model_dir)


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("actions", lambda actions: actions * 0 + 2, "its actions are not all from 0 to 1"),
        ("actions", lambda actions: actions * 0 - 1, "its actions are not all from 0 to 1"),
        ("greedy_actions", lambda actions: actions + 2, "its greedy_actions are not all from 0"),
        (
            "action_probabilities",
            lambda probabilities: probabilities * float("nan"),
            "its action_probabilities are not finite",
        ),
        (
            "log_probabilities",
            lambda logarithms: logarithms - float("inf"),
            "its log_probabilities are not finite",
        ),
        (
            "log_probabilities",
            lambda logarithms: tf.concat([logarithms, [0.0]], 0),
            r"its log_probabilities are computed as .*\[49\]\), expected .*\[48\]\)",
        ),
    ],
)
def test_an_output_that_nobody_can_be_answered_with_is_refused(
    model_dir: Path, name: str, change: Callable[[Any], Any], reason: str
) -> None:
    replace_output(model_dir, name, change)
    with pytest.raises(ArtefactError, match=reason):
        load(model_dir)


@pytest.mark.parametrize(
    ("name", "other", "seen"),
    [
        ("actions", "log_probabilities", "('float32', [48])"),
        ("state_values", "action_logits", "('float32', [48, 2])"),
    ],
)
def test_an_output_of_another_type_or_shape_than_is_declared_is_refused(
    model_dir: Path, name: str, other: str, seen: str
) -> None:
    def change(meta_graph: Any) -> None:
        outputs = meta_graph.signature_def["act"].outputs
        outputs[name].name = outputs[other].name

    edit_graph(model_dir, change)
    with pytest.raises(ArtefactError, match=re.escape(f"its {name} are computed as {seen}")):
        load(model_dir)
