"""The training loop learns, repeats itself and tells the truth about what it reached."""

import dataclasses
import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from tests.guess_the_sign import GuessTheSign
from tests.runs import run_trainer, with_units
from training.config import Environment
from training.config_options import change
from training.errors import StopRequestedError
from training.evaluation import evaluate
from training.finite import NotFiniteError
from training.model import initialize
from training.presets import PRESETS, Preset
from training.state import Progress, TrainingResult
from training.trainer import Trainer


@functools.cache
def default_run(seed: int) -> tuple[Trainer, TrainingResult, list[Progress]]:
    """The default preset; tests share the run and leave it as it is."""
    return run_trainer(PRESETS["ppo"], seed)


@functools.cache
def short_run() -> tuple[Trainer, TrainingResult, list[Progress]]:
    """The default preset with a budget of two updates, shared like `default_run`."""
    return run_trainer(
        dataclasses.replace(PRESETS["ppo"], max_env_steps=2_000, evaluation_episodes=20)
    )


def test_learns_a_tiny_environment(tiny_env: str) -> None:
    config = dataclasses.replace(
        PRESETS["ppo"],
        env_id=tiny_env,
        num_envs=8,
        max_env_steps=20_000,
        evaluation_interval=2,
        evaluation_episodes=20,
        endurance_steps=None,
    )
    _, result, reports = run_trainer(config)
    assert result.solved
    assert min(result.greedy.mean, result.sampled.mean) >= 7.5
    first = reports[config.evaluation_interval - 1].sampled
    assert first is not None
    assert first.mean < 7.5  # it had something to learn


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 5))]
)
def test_the_default_preset_solves_cartpole_with_a_margin(seed: int) -> None:
    trainer, result, reports = default_run(seed)
    assert trainer.reward_threshold == 475.0
    assert result.solved
    assert result.greedy.mean == 500.0
    assert result.greedy.episodes == result.sampled.episodes == 100
    # The mean of the hundred above varies by more than the margin.
    sampled = evaluate(
        result.policy,
        Environment("CartPole-v1"),
        episodes=1_000,
        deterministic=False,
        rng=np.random.default_rng(seed),
    )
    assert sampled.mean >= 490.0
    endured = evaluate(
        result.policy,
        Environment("CartPole-v1", max_episode_steps=10_000),
        episodes=20,
        deterministic=True,
        rng=np.random.default_rng(seed),
    )
    assert endured.mean >= 9_000
    assert trainer.state.env_steps == reports[-1].env_steps < PRESETS["ppo"].max_env_steps


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("ppo", {}),
        ("a2c", {}),
        ("notebook", {}),
        ("acrobot", {"num_envs": 4}),  # more than one update
    ],
)
def test_a_seed_makes_two_runs_identical_and_another_does_not(
    preset: Preset, changes: dict[str, Any]
) -> None:
    config = dataclasses.replace(
        PRESETS[preset], max_env_steps=1_500, evaluation_episodes=2, **changes
    )
    (_, first, first_reports), (_, second, second_reports) = (
        run_trainer(config, 11),
        run_trainer(config, 11),
    )
    assert len(first_reports) > 1
    assert first_reports == second_reports
    weights = tf.nest.flatten(first.policy.weights)
    for one, other in zip(weights, tf.nest.flatten(second.policy.weights), strict=True):
        np.testing.assert_array_equal(one, other)
    assert Trainer(config, 12).step() != first_reports[0]


def test_an_annealed_learning_rate_falls_to_zero_at_the_end_of_the_budget() -> None:
    config = dataclasses.replace(
        PRESETS["ppo"], max_env_steps=3_000, anneal_learning_rate=True, learning_rate=0.3
    )
    _, _, reports = run_trainer(config)
    # the steps of a rollout count before it is learned from
    expected = [0.3 * max(0.0, 1 - report.env_steps / 3_000) for report in reports]
    assert [report.learning_rate for report in reports] == pytest.approx(expected)
    assert reports[-1].learning_rate == 0.0


def test_a_spent_budget_is_not_solved() -> None:
    trainer, result, reports = short_run()
    assert not result.solved
    assert 2_000 <= trainer.state.env_steps < 2_000 + PRESETS["ppo"].rollout_size
    assert reports[-1].sampled is not None
    assert result.sampled.mean < 475.0


def test_greedy_episodes_are_played_only_where_the_sampled_ones_pass() -> None:
    _, _, reports = default_run(0)
    for report in reports:
        passed = report.sampled is not None and report.sampled.mean >= 475.0
        assert (report.greedy is not None) == passed


def test_the_notebook_preset_plays_whole_episodes_until_its_limit() -> None:
    config = dataclasses.replace(PRESETS["notebook"], max_episodes=12, evaluation_episodes=2)
    _, result, reports = run_trainer(config)
    assert [report.episodes for report in reports] == list(range(1, 13))
    assert not result.solved
    # running reward of the notebook: 0.01 of the episode, 0.99 of the past, from 0
    running, steps = 0.0, 0
    for report in reports:
        episode_return = report.env_steps - steps  # CartPole pays 1 a step
        running, steps = 0.01 * episode_return + 0.99 * running, report.env_steps
        assert report.running_return == pytest.approx(running)


def test_compiling_ahead_changes_nothing() -> None:
    weights = Trainer(PRESETS["ppo"], 3).learner.numpy_weights()
    drawn = initialize(np.random.default_rng(3), 4, 2, with_units(64))
    for one, other in zip(tf.nest.flatten(weights), tf.nest.flatten(drawn), strict=True):
        np.testing.assert_array_equal(one, other)


def test_notes_what_training_saw() -> None:
    trainer, _, _ = short_run()
    low, high = trainer.state.observation_low, trainer.state.observation_high
    assert (low < 0).all()
    assert (high > 0).all()
    assert high[2] <= 0.2095  # pole angles past 12 degrees end the episode
    samples = trainer.state.sample_observations
    assert len(samples) >= 16
    assert (low <= samples).all()
    assert (samples <= high).all()


def test_a_threshold_of_ones_own_replaces_the_environments(tiny_env: str) -> None:
    config = dataclasses.replace(PRESETS["ppo"], env_id=tiny_env, reward_threshold=0.0)
    assert Trainer(config, 0).reward_threshold == 0.0


def shifted(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """CartPole in other units: its numbers are in the thousands, around 5,000."""
    space = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    return gym.wrappers.TransformObservation(
        env, lambda numbers: (numbers * 1_000 + 5_000).astype(np.float32), space
    )


def test_observations_in_other_units_are_learned_as_well() -> None:
    # without the normalisation it returns about 20 after 50,000 steps
    config = change(PRESETS["ppo"], {"wrappers": ["tests.test_trainer:shifted"]})
    trainer, result, _ = run_trainer(config, seed=1)
    assert result.solved
    assert trainer.state.env_steps < 60_000
    assert result.policy.normalization is not None
    # the cart may drift by a metre
    np.testing.assert_allclose(result.policy.normalization.mean, 5_000, atol=1_000)


def test_a_stopped_evaluation_is_begun_again_as_if_it_had_not_been() -> None:
    config = dataclasses.replace(
        PRESETS["ppo"], max_env_steps=2_000, evaluation_interval=1, evaluation_episodes=20
    )
    stops = iter([False] * 30 + [True] + [False] * 12 + [True])
    stopped = Trainer(config, 0, stop_requested=lambda: next(stops, False))
    times = 0
    reports = []
    while stopped.state.result is None:
        try:
            reports.append(stopped.step())
        except StopRequestedError:
            times += 1
    expected_trainer, expected, expected_reports = run_trainer(config)
    assert times == 2
    assert reports == expected_reports
    assert stopped.state.result[1:] == expected[1:]
    assert stopped.state.evaluation_steps == expected_trainer.state.evaluation_steps > 0


class Poisoned(GuessTheSign):
    """Rewards or observations become what no policy can learn from, after 20 steps."""

    def __init__(self, where: str, number: float) -> None:
        self.where, self.number, self.steps = where, number, 0

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, extra = super().step(action)
        self.steps += 1
        if self.steps == 20:
            if self.where == "reward":
                reward = self.number
            else:
                observation[0] = self.number
        return observation, reward, terminated, truncated, extra


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["reward", "observation"])
def test_what_is_not_finite_ends_the_run_before_it_is_learned_from(
    where: str, number: float
) -> None:
    gym.register("Poisoned-v0", entry_point=lambda **_: Poisoned(where, number))
    config = dataclasses.replace(
        PRESETS["ppo"], env_id="Poisoned-v0", num_envs=1, num_steps=16, num_minibatches=1
    )
    trainer = Trainer(config, 0)
    trainer.step()
    before = tf.nest.flatten(trainer.learner.numpy_weights())
    # in the second rollout: two steps of 20 only reset the environment
    wanted = rf"after \d+ environment steps, step \d of the rollout: .*{where}.* is {number}"
    with pytest.raises(NotFiniteError, match=wanted):
        trainer.step()
    after = tf.nest.flatten(trainer.learner.numpy_weights())
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    gym.registry.pop("Poisoned-v0")


def test_a_rollout_may_be_one_step_of_one_environment() -> None:
    config = dataclasses.replace(
        PRESETS["a2c"],
        num_envs=1,
        num_steps=1,
        max_episode_steps=9,
        max_env_steps=60,
        evaluation_episodes=1,
        normalize_observations=True,
        scale_rewards=True,
    )
    trainer, _, reports = run_trainer(config)
    # the first step only measures observations
    assert [report.env_steps for report in reports] == list(range(2, 61))
    assert trainer.state.episodes >= 60 // 9
    assert trainer.state.reward_scale.moments.samples == 60
    assert trainer.state.observation_moments.samples == 60


def test_whole_episodes_begin_with_no_reward_of_the_ones_before() -> None:
    config = dataclasses.replace(
        PRESETS["notebook"], num_envs=2, num_steps=5, evaluation_interval=1_000, scale_rewards=True
    )
    trainer = Trainer(config, 0)
    for _ in range(2):
        trainer.step()
        # none of them ends within 5 steps, in which it earns 1 each
        earned = sum(0.99**step for step in range(5))
        np.testing.assert_allclose(trainer.state.reward_scale.returns, [earned, earned])


def test_a_loss_that_is_not_finite_ends_the_run(tiny_env: str) -> None:
    config = dataclasses.replace(PRESETS["ppo"], env_id=tiny_env, num_envs=4, learning_rate=1e38)
    trainer = Trainer(config, 0)
    with pytest.raises(NotFiniteError, match=r"update \d: \w+ is (nan|inf|-inf)"):
        trainer.step()
