"""A version converted to ONNX, by the command of docs/artefact.md, computes the same."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ENVIRONMENT, ROOT, Trained

pytestmark = pytest.mark.peers

PEER = ROOT / ".peers" / "onnx"
# Around the blocks of 16 rows that the graph pads a batch to.
ROWS = (1, 2, 15, 16, 17, 100)
RUN = """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
names = [output.name for output in session.get_outputs()]
inputs = dict(numpy.load(sys.argv[2]))
inputs = {one.name: inputs[one.name] for one in session.get_inputs()}
numpy.savez(sys.argv[3], **dict(zip(names, session.run(names, inputs))))
"""
SAMPLED = ("actions", "log_probabilities")


def run_peer(*arguments: str | Path, cwd: Path) -> None:
    assert (PEER / "installed").exists(), "`make test-peers` installs it"
    finished = subprocess.run(
        [PEER / "bin" / "python", *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr


def convert(models: Path, folder: Path, signature: str) -> Path:
    """Run the documented command beside `models`."""
    document = (ROOT / "docs" / "artefact.md").read_text()
    (command,) = re.findall(r"^    python (-m tf2onnx\.convert .*)$", document, re.MULTILINE)
    (folder / "models").symlink_to(models)
    run_peer(*shlex.split(command.replace("--signature_def act", signature)), cwd=folder)
    return folder / "policy.onnx"


def inputs(rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(rows)
    return {
        "observations": rng.normal(size=(rows, 4)).astype(np.float32),
        "uniforms": rng.random(rows, np.float32),
        "deterministic": np.arange(rows) % 3 == 0,
    }


def answers(onnx: Path, folder: Path, rows: int) -> dict[str, Any]:
    """What ONNX Runtime computes."""
    asked, answered = folder / f"{rows}.npz", folder / f"{rows}-answered.npz"
    np.savez(asked, **inputs(rows))
    run_peer("-c", RUN, onnx, asked, answered, cwd=folder)
    return dict(np.load(answered))


def expect_equal(name: str, actual: Any, expected: Any) -> None:
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape), name
    # Rounded differently: two libraries add in different orders.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.fixture(scope="module")
def act(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("act")
    return convert(trained.models, folder, "--signature_def act")


@pytest.fixture(scope="module")
def default(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("default")
    return convert(trained.models, folder, "--signature_def serving_default")


@pytest.mark.parametrize("rows", ROWS)
def test_act_computes_the_same(act: Path, trained: Trained, tmp_path: Path, rows: int) -> None:
    signature = tf.saved_model.load(trained.model_dir).signatures["act"]
    expected = signature(**{name: tf.constant(value) for name, value in inputs(rows).items()})
    answered = answers(act, tmp_path, rows)
    assert set(answered) == set(expected)
    for name, value in expected.items():
        expect_equal(name, answered[name], value.numpy())


@pytest.mark.parametrize("rows", ROWS)
def test_the_default_signature_computes_the_same_but_for_what_it_draws(
    default: Path, trained: Trained, tmp_path: Path, rows: int
) -> None:
    signature = tf.saved_model.load(trained.model_dir).signatures["serving_default"]
    expected = signature(observations=tf.constant(inputs(rows)["observations"]))
    answered = answers(default, tmp_path, rows)
    assert set(answered) == set(expected)
    for name in set(expected) - set(SAMPLED):
        expect_equal(name, answered[name], expected[name].numpy())
    probabilities = answered["action_probabilities"][np.arange(rows), answered["actions"]]
    expect_equal("log_probabilities", answered["log_probabilities"], np.log(probabilities))
