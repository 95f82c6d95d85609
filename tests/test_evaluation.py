"""Evaluations against episodes played one at a time."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from training.config import Environment
from training.evaluation import Evaluation, ReturnBoundsError, evaluate, summarize
from training.finite import NotFiniteError
from training.intervals import betting_interval
from training.types import FloatArray, PolicyFunction


def lean(observations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Push towards the side the pole leans to: falls after some dozens of steps."""
    angle = observations[:, 2]
    return np.stack([-1e3 * angle, 1e3 * angle], axis=1), angle


def greedy(policy: PolicyFunction, environment: Environment, *, episodes: int) -> Evaluation:
    """An evaluation with the most probable actions, always from the same starts."""
    rng = np.random.default_rng(0)
    return evaluate(policy, environment, episodes=episodes, deterministic=True, rng=rng)


def test_the_mean_agrees_with_gymnasiums_single_environment() -> None:
    episodes = 300
    together = greedy(lean, Environment("CartPole-v1"), episodes=episodes)
    env = gym.make("CartPole-v1")
    alone = []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        total, ended = 0.0, False
        while not ended:
            observation, reward, terminated, truncated, _ = env.step(int(observation[2] > 0))
            total += float(reward)
            ended = terminated or truncated
        alone.append(total)
    env.close()
    spread = np.hypot(together.standard_deviation, np.std(alone)) / np.sqrt(episodes)
    assert together.episodes == episodes
    assert abs(together.mean - np.mean(alone)) < 5 * spread


def test_a_reward_beyond_float32_is_told_with_its_step() -> None:
    class Endless(gym.Wrapper[Any, Any, Any, Any]):
        def step(self, action: Any) -> Any:
            observation, _, *rest = super().step(action)
            return observation, 1e39, *rest

    gym.register("Costly-v0", lambda **_: Endless(gym.make("CartPole-v1")))
    try:
        with pytest.raises(NotFiniteError, match="step 1 of an evaluation: the reward of"):
            greedy(lean, Environment("Costly-v0"), episodes=2)
    finally:
        gym.registry.pop("Costly-v0")


def test_every_environment_contributes_its_first_episode_only() -> None:
    result = greedy(lean, Environment("CartPole-v1"), episodes=1)
    assert result.minimum == result.mean
    assert result.standard_deviation == 0.0
    assert 20 <= result.mean <= 80


def test_an_environment_is_not_stepped_any_more_once_its_episode_has_ended(
    own_environments: None,  # noqa: ARG001  # a fixture
) -> None:
    from own import Countdown  # type: ignore[import-not-found]  # of the fixture's folder

    Countdown.steps = 0
    result = greedy(lean_of_anything, Environment("own:Countdown-v0"), episodes=3)
    assert result.minimum < result.mean
    assert Countdown.steps == result.steps == round(result.mean * 3)


def lean_of_anything(observations: FloatArray) -> tuple[FloatArray, FloatArray]:
    return np.zeros((len(observations), 2), np.float32), observations[:, 0]


def test_the_same_generator_state_repeats_an_evaluation() -> None:
    first, second = (
        evaluate(
            lambda observations: (np.zeros((len(observations), 2), np.float32), observations[:, 0]),
            Environment("CartPole-v1"),
            episodes=20,
            deterministic=False,
            rng=np.random.default_rng(5),
        )
        for _ in range(2)
    )
    assert first == second
    assert first.standard_deviation > 0


class Endless(gym.Env[np.ndarray, np.int64]):
    """Pays 1 a step, for ever."""

    observation_space = gym.spaces.Box(0, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return np.zeros(1, np.float32), {}

    def step(self, _: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return np.zeros(1, np.float32), 1.0, False, False, {}


@pytest.mark.parametrize(("limit", "expected"), [(None, 10_000), (7, 7), (12_000, 12_000)])
def test_an_episode_without_an_end_is_cut(limit: int | None, expected: int) -> None:
    gym.register("Endless-v0", entry_point=lambda **_: Endless())
    result = greedy(
        lambda observations: (np.zeros((len(observations), 2), np.float32), observations[:, 0]),
        Environment("Endless-v0", max_episode_steps=limit),
        episodes=2,
    )
    gym.registry.pop("Endless-v0")
    assert result.mean == expected
    assert result.steps == 2 * expected


class CutShort(Endless):
    """Truncates its episodes by itself, after 3 steps."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self, _: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(1, np.float32), 1.0, False, self.steps % 3 == 0, {}


def test_an_episode_that_its_environment_truncates_is_over() -> None:
    gym.register("CutShort-v0", entry_point=lambda **_: CutShort())
    try:
        result = greedy(lean_of_anything, Environment("CutShort-v0"), episodes=2)
    finally:
        gym.registry.pop("CutShort-v0")
    assert (result.mean, result.steps) == (3, 6)


@pytest.mark.parametrize(
    ("bounds", "beyond", "too_far"), [((0, 500), 4e-4, 6e-4), ((-2e-3, 0), 1e-9, 3e-9)]
)
def test_what_rounding_puts_outside_the_bounds_is_a_millionth_of_the_larger_one(
    bounds: tuple[float, float], beyond: float, too_far: float
) -> None:
    low, high = bounds
    assert summarize(np.array([low - beyond, high + beyond]), bounds).mean == (low + high) / 2
    for wrong in (low - too_far, high + too_far):
        with pytest.raises(ReturnBoundsError, match="outside the bounds"):
            summarize(np.array([wrong]), bounds)


def test_summary_by_hand() -> None:
    summary = summarize(np.array([1.0, 3.0]), None)
    assert summary.mean == 2.0
    assert summary.standard_deviation == pytest.approx(np.sqrt(2))
    assert summary.minimum == 1.0
    assert (summary.confidence_interval, summary.interval_method) == ((1.0, 3.0), "bootstrap")


@pytest.mark.parametrize("reached", [0.8, 0.1, 0.7, -3.3, 475.0])
@pytest.mark.parametrize("episodes", [3, 6, 100, 1000])
def test_the_mean_of_equal_returns_is_each_of_them(reached: float, episodes: int) -> None:
    assert summarize(np.full(episodes, reached), None).mean == reached


def test_known_bounds_give_an_interval_that_holds() -> None:
    returns = np.array([1.0, 3.0])
    summary = summarize(returns, (0.0, 5.0))
    assert summary.confidence_interval == betting_interval(returns, (0.0, 5.0))
    assert summary.interval_method == "betting"


@pytest.mark.parametrize(("low", "high"), [(0.0, 50.0), (-50.0, 0.0)])
def test_a_return_that_rounding_puts_outside_the_bounds_is_at_the_bound(
    low: float, high: float
) -> None:
    perfect = np.copysign(sum([0.1] * 500), low + high)  # 50.00000000000044
    assert abs(perfect) > 50.0
    assert summarize(np.array([perfect, low]), (low, high)) == summarize(
        np.array([low + high, low]), (low, high)
    )


@pytest.mark.parametrize("wrong", [50.1, 50.0001, -0.001])
def test_a_return_beyond_rounding_is_told_with_all_its_digits(wrong: float) -> None:
    with pytest.raises(ReturnBoundsError, match=rf"returned {wrong}, outside the bounds 0 to 50$"):
        summarize(np.array([50.0, wrong, 0.0]), (0.0, 50.0))


@pytest.mark.parametrize("bounds", [(0.0, 2.5), (1.5, 5.0)])
def test_a_return_outside_the_bounds_is_an_error(bounds: tuple[float, float]) -> None:
    with pytest.raises(ReturnBoundsError, match=r"returned [13], outside the bounds"):
        summarize(np.array([1.0, 3.0]), bounds)
