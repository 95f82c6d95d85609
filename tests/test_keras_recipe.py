"""The recipe of docs/artefact.md that makes a Keras model of a version, with Keras 3."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from tests.conftest import ENVIRONMENT, ROOT, Trained
from tests.runs import with_units
from training.config import Activation
from training.model import Policy, initialize
from training.normalization import no_samples
from training.savedmodel import network_of
from training.writing import golden_values, write_version

# Blocks of 48 rows of a batch of 96, each alone.
BLOCKS = """
for start in range(0, 96, 48):
    block = slice(start, start + 48)
    alone = model.predict(rows[block], batch_size=48, verbose=0)
    assert np.array_equal(alone[0], logits[block]) and np.array_equal(alone[1], values[block])
"""


def differences(model_dir: Path, more: str = "") -> list[float]:
    """Run the recipe: the largest differences of the logits and of the values."""
    document = (ROOT / "docs" / "artefact.md").read_text()
    (recipe,) = re.findall(r"^```python\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    finished = subprocess.run(
        [sys.executable, "-W", "error", "-c", recipe + more, model_dir],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return [float(line) for line in finished.stdout.splitlines()]


def test_the_model_computes_what_the_version_does_in_any_whole_blocks(trained: Trained) -> None:
    assert differences(trained.model_dir, BLOCKS) == [0.0, 0.0]


@pytest.mark.long
@pytest.mark.parametrize(
    ("activation", "trunk", "hidden_units", "normalized"),
    [
        ("tanh", "shared", (64,), True),
        ("relu", "separate", (64, 32), False),
        ("linear", "separate", (32,), True),
    ],
)
def test_every_network_computes_the_same(
    activation: Activation,
    trunk: Literal["shared", "separate"],
    hidden_units: tuple[int, ...],
    normalized: bool,
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    config = dataclasses.replace(with_units(*hidden_units), activation=activation, trunk=trunk)
    observations = rng.normal(size=(16, 4)).astype(np.float32)
    moments = no_samples(4).including(observations)
    policy = Policy(
        initialize(rng, 4, 2, config), activation, moments.normalization() if normalized else None
    )
    card = {
        "observations": {"names": list("abcd"), "shape": [4]},
        "training": {"config": {"activation": activation}},
    }
    version = write_version(tmp_path, network_of(policy), card, golden_values(policy, observations))
    assert differences(version) == [0.0, 0.0]
