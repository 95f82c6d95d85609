"""The harder episodes: that they are harder in the way they say, and who survives them."""

import numpy as np
import numpy.typing as npt
import pytest

from training.config import Environment
from training.evaluation import Evaluation
from training.model import Policy
from training.presets import PRESETS
from training.robustness import play_long_episodes, robustness
from training.trainer import Trainer
from training.types import FloatArray, PolicyFunction

SECONDS_A_STEP = 0.02  # CartPole's


def always_right(observations: FloatArray) -> tuple[FloatArray, FloatArray]:
    logits = np.zeros((len(observations), 2), np.float32)
    logits[:, 1] = 1.0
    return logits, observations[:, 0]


class Watched:
    """A policy that remembers what it saw, step by step."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.seen: list[FloatArray] = []

    def __call__(self, observations: FloatArray) -> tuple[FloatArray, FloatArray]:
        self.seen.append(observations.copy())
        return self.policy(observations)


@pytest.fixture(scope="module")
def learned() -> Policy:
    trainer = Trainer(PRESETS["ppo"], seed=0)
    while trainer.state.result is None:
        trainer.step()
    assert trainer.state.result.solved
    return trainer.state.result.policy


def test_a_policy_that_always_pushes_right_fails_everything() -> None:
    tested = robustness(always_right, Environment("CartPole-v1"))
    assert {name: result.episodes for name, result in tested.items()} == {
        "wider_starts": 100,
        "pushes": 1_000,
        "long_episodes": 20,
    }
    for result in tested.values():
        assert 5.0 < result.mean < 15.0  # it falls to the left within a third of a second


def test_a_learned_policy_holds_far_beyond_its_time_limit(learned: Policy) -> None:
    tested = robustness(learned, Environment("CartPole-v1"))
    assert tested["long_episodes"].minimum == 10_000.0
    assert tested["wider_starts"].mean > 450.0
    assert tested["pushes"].mean > 100.0  # its weakness: policies differ, also by processor
    assert tested["pushes"].mean <= 500.0
    assert tested == robustness(learned, Environment("CartPole-v1"))


def test_the_endurance_test_is_the_long_episodes_of_the_card(learned: Policy) -> None:
    environment = Environment("CartPole-v1")

    def endurance(policy: PolicyFunction, steps: int) -> Evaluation:
        return play_long_episodes(policy, environment, steps, lambda: False, until_one_ends=True)

    passed = endurance(learned, 10_000)
    assert passed == robustness(learned, environment)["long_episodes"]
    given, short = Watched(learned), endurance(learned, 100)
    assert robustness(given, environment, endurance=passed)["long_episodes"] is passed
    assert {len(seen) for seen in given.seen} == {100, 1_000}  # the long ones are not played
    assert robustness(learned, environment, endurance=short)["long_episodes"] == passed


def test_the_endurance_test_ends_with_the_first_fall() -> None:
    environment = Environment("CartPole-v1")
    stopped = play_long_episodes(
        always_right, environment, 10_000, lambda: False, until_one_ends=True
    )
    whole = play_long_episodes(always_right, environment, 10_000, lambda: False)
    assert stopped.steps == 20 * whole.minimum < whole.steps


def test_cartpole_only() -> None:
    assert robustness(always_right, Environment("Acrobot-v1")) == {}
    assert set(robustness(always_right, Environment("CartPole-v0"))) == {
        "wider_starts",
        "pushes",
        "long_episodes",
    }


def test_starts_are_wider_and_pushes_change_both_velocities(learned: Policy) -> None:
    watched = Watched(learned)
    robustness(watched, Environment("CartPole-v1"))
    # At least one of 100 environments lasts for all 500 steps of each of the first two tests.
    wider, pushed, plain = (np.stack(watched.seen[i : i + 100]) for i in (0, 500, 1_000))
    assert [part.shape for part in (wider, pushed, plain)] == [
        (100, 100, 4),
        (100, 1_000, 4),
        (100, 20, 4),
    ]
    assert 0.14 < np.abs(wider[0]).max() <= 0.15
    assert 0.04 < np.abs(pushed[0]).max() <= 0.05
    assert 0.04 < np.abs(plain[0]).max() <= 0.05

    for part in (wider, plain):
        np.testing.assert_allclose(velocities_added(part), 0.0, atol=1e-3)
    added = velocities_added(pushed)
    at_a_push = np.arange(len(added)) % 25 == 0
    np.testing.assert_allclose(added[~at_a_push], 0.0, atol=1e-3)
    for kick in added[at_a_push].reshape(-1, 2).T:  # of carts, of poles
        assert abs(kick.mean()) < 0.1  # 5 standard errors of 100 or more
        assert 0.4 < kick.std() < 0.6
    cart, pole = added[at_a_push].reshape(-1, 2).T
    assert abs(np.corrcoef(cart, pole)[0, 1]) < 0.3


def velocities_added(observations: FloatArray) -> npt.NDArray[np.float64]:
    """What was added to the velocities between observation and step: `[T - 1, N, 2]`.

    Euler's rule moves positions by the velocities that a step begins with. Only of
    environments that have not fallen.
    """
    standing = (np.abs(observations[..., 2]) < 0.2).all(axis=0) & (
        np.abs(observations[..., 0]) < 2.3
    ).all(axis=0)
    assert standing.sum() >= 20
    kept = observations[:, standing].astype(np.float64)
    moved = np.diff(kept[..., ::2], axis=0) / SECONDS_A_STEP
    added: npt.NDArray[np.float64] = moved - kept[:-1, :, 1::2]
    return added
