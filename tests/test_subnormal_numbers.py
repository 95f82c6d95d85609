"""Numbers below the least normal float32 are computed alike, however many rows come together.

TensorFlow's own threads round them to zero, and the thread that calls it does not.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.client import PolicyClient
from tests.conftest import run, running_service
from tests.scoring import answer, expect_equal, read, write
from training.config import Environment
from training.export import export

WIDTH = 64  # of the hidden layer: a large call is then worth several threads to TensorFlow
ROW = [1e-39, 0.0, 0.0, 0.0]  # the least normal number is 1.2e-38
MANY = 60_000


def amplifier(observations: Any) -> tuple[Any, Any]:
    """Answers 0 only where a subnormal position is taken for 0."""
    hidden = tf.matmul(observations, tf.fill([4, WIDTH], 1e23))
    push = tf.matmul(tf.tanh(1e15 * hidden), tf.fill([WIDTH, 1], 1 / WIDTH))
    return tf.concat([-push, push], axis=1), push[:, 0]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    export(
        models / "amplifier",
        amplifier,
        Environment("CartPole-v1"),
        episodes=2,
        return_bounds=(0, 500),
        reward_threshold=1,
    )
    return models


def test_a_row_is_answered_alone_as_among_many_which_the_log_proves(
    models: Path, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    options = ("--name", "amplifier", "--workers", "1", "--decision-log", str(record))
    with (
        running_service(models, tmp_path / "log", *options) as service,
        PolicyClient(service.url) as client,
    ):
        client.wait_until_ready(60)
        alone, together = (answer(service, np.array([ROW] * rows), seed=7) for rows in (1, MANY))
    assert alone["state_values"][0] == pytest.approx(np.tanh(0.1), rel=1e-5)
    assert np.unique(together["state_values"]) == alone["state_values"]
    assert np.unique(together["action_logits"], axis=0).tolist() == alone["action_logits"].tolist()
    replayed = run("serving", "replay", str(record), "--models", str(models))
    assert replayed.returncode == 0, replayed.stderr
    assert "proved         2 decisions, bit for bit" in replayed.stdout
    rows = write(tmp_path / "in.npy", np.array([ROW] * MANY, np.float32))
    scored = run(
        *("serving", "score", str(rows), str(tmp_path / "out.npy"), "--seed", "7"),
        *("--models", str(models), "--name", "amplifier"),
    )
    assert scored.returncode == 0, scored.stderr
    expect_equal(read(tmp_path / "out.npy"), together)
