"""Versions to compare, which were really exported."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.registry.trial import Trials
from tests.artefacts import edit_card, publish

# Both let the pole fall soon: they are evaluated in little time.
CHAMPION, CHALLENGER = np.array([[0, 0, 2, 0], [0.3, 0, 1, 0]], np.float32)


def pushes_along(weights: Any) -> Callable[[Any], tuple[Any, Any]]:
    import tensorflow as tf

    def policy(observations: Any) -> tuple[Any, Any]:
        push = 5 * tf.linalg.matvec(observations, weights)
        return tf.stack([-push, push], axis=1), push

    return policy


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 push to where a weighted sum of the observations points."""
    from training.config import Environment
    from training.export import export

    base = tmp_path_factory.mktemp("exported") / "models" / "cartpole"
    environment = Environment("CartPole-v1")
    for weights in (CHAMPION, CHALLENGER):
        policy = pushes_along(weights)
        export(base, policy, environment, episodes=20, reward_threshold=5, return_bounds=(0, 500))
    return base.parent


@pytest.fixture
def models(exported: Path, tmp_path: Path) -> Path:
    """These, and copies of version 2: 3 without bounds, 4 of another environment."""
    models = tmp_path / "models"
    changes: list[Callable[[Path], object]] = [
        lambda _: None,
        lambda _: None,
        lambda path: edit_card(path, lambda card: card.update(return_bounds=None)),
        lambda path: edit_card(path, lambda card: card.update(environment="Acrobot-v1")),
    ]
    (models / "cartpole").mkdir(parents=True)
    for version, change in enumerate(changes, 1):
        source = exported / "cartpole" / str(min(version, 2))
        publish(source, models / "cartpole" / str(version), change)
    return models


@pytest.fixture(autouse=True)
def _trials_of_the_session(trials: Trials, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process, which has run TensorFlow, take the fork server of before."""
    for module in ("serving.registry.promotion", "serving.registry.trial"):
        monkeypatch.setattr(f"{module}.Trials", lambda: nullcontext(trials))
