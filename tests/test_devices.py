"""LiteRT and ONNX Runtime, by the recipes of docs/portability.md, decide as the service does."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from serving.policy.sampling import uniforms_of
from tests.conftest import ENVIRONMENT, ROOT, Trained
from tests.test_onnx import convert, run_peer

ROWS = 10_000
CLOSE_ROWS = 1000


def recipe(needle: str) -> str:
    """The block of Python in the page that has this text."""
    page = (ROOT / "docs" / "portability.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if needle in block]
    return str(found)


def documented_margin() -> float:
    """What the page says that decides about equal actions."""
    page = (ROOT / "docs" / "portability.md").read_text()
    (margin,) = re.findall(r"margin of (\S+) or more", page)
    return float(margin)


def run_here(code: str, folder: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr


def act(trained: Trained, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the service computes."""
    signature = tf.saved_model.load(trained.model_dir).signatures["act"]
    outputs = signature(**{name: tf.constant(array) for name, array in inputs.items()})
    return {name: output.numpy() for name, output in outputs.items()}


def inputs_of(trained: Trained) -> dict[str, Any]:
    """Seeded rows all over what training saw, sampled and greedy in turn; close ones; the golden.

    The random number of a close row is near the limit between two actions: twice the margin away.
    """
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    low, high = card["observations"]["seen_low"], card["observations"]["seen_high"]
    seeded = np.random.default_rng(0).uniform(low, high, (ROWS, len(low))).astype(np.float32)
    is_greedy = np.arange(ROWS) % 2 == 1
    inputs = {
        "observations": seeded,
        "uniforms": uniforms_of([7], [ROWS]),
        "deterministic": is_greedy,
    }
    limits = np.cumsum(act(trained, inputs)["action_probabilities"], axis=1, dtype=np.float64)
    # Where either side of the limit has room.
    open_rows = np.flatnonzero((limits[:, 0] > 0.01) & (limits[:, 0] < 0.99))[:CLOSE_ROWS]
    sides = np.where(np.arange(CLOSE_ROWS) % 2 == 1, 1, -1)
    close = limits[open_rows, 0] + 2 * documented_margin() * sides
    golden = np.array(golden_values(trained)["observations"], np.float32)
    return {
        "observations": np.concatenate([seeded, seeded[open_rows], golden]),
        "uniforms": np.concatenate([inputs["uniforms"], close, np.zeros(len(golden))]).astype(
            np.float32
        ),
        "deterministic": np.concatenate(
            [is_greedy, np.zeros(CLOSE_ROWS, np.bool_), np.ones(len(golden), np.bool_)]
        ),
    }


def golden_values(trained: Trained) -> dict[str, Any]:
    content = (trained.model_dir / "assets.extra" / "golden.json").read_text()
    return dict(json.loads(content))


def margins(expected: dict[str, Any], inputs: dict[str, Any]) -> npt.NDArray[np.float64]:
    """How far each row is from another action, in probability.

    For a sampled action it is the distance of the random number to the next limit between two
    actions, for a greedy one the lead of the most probable action.
    """
    probabilities = expected["action_probabilities"].astype(np.float64)
    limits = np.cumsum(probabilities, axis=1)[:, :-1]
    sampled = np.abs(limits - inputs["uniforms"][:, np.newaxis]).min(axis=1)
    ordered = np.sort(probabilities, axis=1)
    greedy = ordered[:, -1] - ordered[:, -2]
    margin: npt.NDArray[np.float64] = np.where(inputs["deterministic"], greedy, sampled)
    return margin


def expect_same_decisions(trained: Trained, inputs: dict[str, Any], folder: Path) -> None:
    expected = act(trained, inputs)
    device = dict(np.load(folder / "outputs.npz"))
    assert device.keys() == expected.keys()
    golden = golden_values(trained)
    tolerance = golden["tolerance"]
    for name in ("action_logits", "state_values"):
        computed = device[name][ROWS + CLOSE_ROWS :]
        np.testing.assert_allclose(computed, golden[name], tolerance, tolerance)
    margin = documented_margin()
    difference = np.abs(device["action_probabilities"] - expected["action_probabilities"])
    assert difference.max() < 1e-6  # as the page says
    is_clear = margins(expected, inputs) >= margin
    # Otherwise it would say nothing about nearly all rows.
    assert np.count_nonzero(~is_clear) <= len(is_clear) // 1000
    np.testing.assert_array_equal(device["actions"][is_clear], expected["actions"][is_clear])


@pytest.mark.long
def test_litert_decides_as_the_service_does(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(trained.models)
    inputs = inputs_of(trained)
    np.savez(tmp_path / "inputs.npz", **inputs)
    run_here(recipe("TFLiteConverter"), tmp_path)
    run_here(recipe("tf.lite.Interpreter"), tmp_path)
    expect_same_decisions(trained, inputs, tmp_path)


@pytest.mark.peers
def test_onnx_runtime_decides_as_the_service_does(trained: Trained, tmp_path: Path) -> None:
    convert(trained.models, tmp_path, "--signature_def act")
    inputs = inputs_of(trained)
    np.savez(tmp_path / "inputs.npz", **inputs)
    run_peer("-c", recipe("onnxruntime"), cwd=tmp_path)
    expect_same_decisions(trained, inputs, tmp_path)
