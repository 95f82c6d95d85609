"""A policy that was learned elsewhere, exported by the public function."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import ENVIRONMENT, ROOT, run
from training.config import ConfigError, Environment
from training.export import export
from training.writing import ExportError

CARTPOLE = Environment("CartPole-v1")
# A linear controller that balances the pole: the push goes to where the pole leans and moves.
GAINS = tf.Variable([[0.5], [0.5], [10.0], [3.0]], name="gains")


def controller(observations: Any) -> tuple[Any, Any]:
    push = 10.0 * tf.matmul(observations, GAINS)
    return tf.concat([-push, push], axis=1), push[:, 0]


def careless(observations: Any) -> tuple[Any, Any]:
    logits, values = controller(observations)
    return -logits, values


def never_asked(_: Any) -> tuple[Any, Any]:
    raise AssertionError


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("elsewhere") / "linear"
    return export(base, controller, CARTPOLE, episodes=20, return_bounds=(0, 500))


def test_it_is_a_version_that_verifies(version: Path) -> None:
    finished = run("serving", "verify", str(version))
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_its_card_tells_how_good_it_is_and_not_how_it_was_trained(version: Path) -> None:
    card = json.loads((version / "assets.extra" / "policy.json").read_text())
    assert card["solved"] is True
    assert card["training"] is None
    assert card["reward_threshold"] == 475.0
    assert card["return_bounds"] == [0, 500]
    assert card["observations"]["names"][0] == "cart_position"
    for kind in ("greedy", "sampled"):
        assert card["evaluation"][kind]["episodes"] == 20
        assert card["evaluation"][kind]["interval_method"] == "betting"
        assert 475 * 20 <= card["evaluation"][kind]["steps"] <= 500 * 20
    assert card["robustness"]["long_episodes"]["mean"] == 10_000.0
    low, high = card["observations"]["seen_low"], card["observations"]["seen_high"]
    golden = json.loads((version / "assets.extra" / "golden.json").read_text())
    assert (np.array(low) <= golden["observations"]).all()
    assert (np.array(golden["observations"]) <= high).all()
    np.testing.assert_allclose(
        golden["state_values"],
        10 * np.array(golden["observations"]) @ [0.5, 0.5, 10, 3],
        rtol=1e-4,
        atol=1e-4,
    )


def test_its_graph_is_run_only_if_that_is_asked_for(version: Path, tmp_path: Path) -> None:
    refused = run("training", "evaluate", str(version))
    assert refused.returncode == 2
    assert "--run-graph" in refused.stderr
    assert refused.stderr.count("\n") == 1
    finished = run("training", "evaluate", str(version), "--run-graph", "--episodes", "3", "--json")
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["greedy"]["mean"] == 500.0
    gif = tmp_path / "episode.gif"
    finished = run("training", "render", str(version), "--run-graph", "--output", str(gif))
    assert finished.returncode == 0, finished.stderr
    assert gif.read_bytes().startswith(b"GIF")


def test_no_run_goes_on_from_it(version: Path) -> None:
    refused = run("training", "train", "--from", str(version))
    assert refused.returncode == 2
    assert refused.stderr.endswith("was learned elsewhere: no config to continue with\n")


def test_one_that_fails_is_written_only_if_that_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"not solved: greedy \d+.*, 475 is the reward threshold"):
        export(tmp_path / "careless", careless, CARTPOLE, episodes=3)
    assert not (tmp_path / "careless").exists()
    version = export(tmp_path / "careless", careless, CARTPOLE, episodes=3, allow_unsolved=True)
    assert run("serving", "verify", str(version)).returncode == 1
    version = export(tmp_path / "careless", careless, CARTPOLE, episodes=3, reward_threshold=5)
    assert run("serving", "verify", str(version)).returncode == 0


@pytest.mark.parametrize(
    "policy",
    [
        lambda rows: (tf.zeros([tf.shape(rows)[0], 3]), rows[:, 0]),
        lambda rows: (rows[:, :2], rows[:, :1]),
    ],
)
def test_outputs_of_other_shapes_are_refused(policy: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"have the shapes .* are needed"):
        export(tmp_path, policy, CARTPOLE, episodes=2)


@pytest.mark.parametrize(
    ("policy", "which"),
    [
        (lambda rows: (tf.cast(controller(rows)[0], tf.float64), rows[:, 0]), "logits"),
        (lambda rows: (controller(rows)[0], tf.cast(rows[:, 0], tf.float64)), "values"),
        (lambda rows: (tf.where(controller(rows)[0] < 0, -np.inf, 0.0), rows[:, 0]), "logits"),
        (lambda rows: (controller(rows)[0], rows[:, 0] / 0.0), "values"),
    ],
)
def test_outputs_that_are_not_finite_float32_are_refused(
    policy: Any, which: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=f"the {which} are not all finite numbers of float32"):
        export(tmp_path, policy, CARTPOLE, episodes=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward_threshold": np.nan}, "reward_threshold has a number that is not finite"),
        ({"reward_threshold": "many"}, "reward_threshold: could not convert"),
        ({"return_bounds": (0, np.inf)}, "return_bounds has a number that is not finite"),
        ({"return_bounds": (500, 0)}, "return_bounds must be two numbers, the smaller one first"),
        ({"return_bounds": (0,)}, "return_bounds must be two numbers, the smaller one first"),
    ],
)
def test_a_threshold_or_bounds_that_no_card_can_have_are_refused_before_any_episode(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export(tmp_path, never_asked, CARTPOLE, **options)


def test_a_threshold_and_bounds_of_numpy_are_on_the_card(tmp_path: Path) -> None:
    bounds = np.array([0, 500], np.float32)
    threshold = np.float32(475)
    version = export(
        tmp_path / "linear",
        controller,
        CARTPOLE,
        episodes=2,
        reward_threshold=threshold,  # type: ignore[arg-type]  # as a caller without types
        return_bounds=bounds,  # type: ignore[arg-type]  # as a caller without types
    )
    card = json.loads((version / "assets.extra" / "policy.json").read_text())
    assert (card["reward_threshold"], card["return_bounds"]) == (475.0, [0.0, 500.0])


def test_the_function_of_the_documentation_becomes_a_version(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "own.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "models/linear/1\n"


def test_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="action_names has 1 names"):
        export(tmp_path, controller, CARTPOLE, action_names=["push"])
