"""The training loop learns, repeats itself and tells the truth about what it reached."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf

from tests.runs import with_units
from training.config import ConfigError, Environment, TrainingConfig
from training.config_options import change
from training.evaluation import Evaluation, StopRequestedError, evaluate
from training.finite import NotFiniteError
from training.model import Policy, initialize
from training.presets import PRESETS, Preset
from training.robustness import robustness
from training.state import Progress, TrainingResult
from training.trainer import Trainer


class GuessTheSign(gym.Env[np.ndarray, np.int64]):
    """Pays 1 for each of 8 steps whose action says whether the observation is positive."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.remaining = 8
        return self._look(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        right = bool(action) == (self.seen > 0)
        self.remaining -= 1
        return self._look(), float(right), self.remaining == 0, False, {}

    def _look(self) -> np.ndarray:
        self.seen = self.np_random.uniform(-1, 1)
        return np.array([self.seen], np.float32)


@pytest.fixture
def tiny_env() -> Iterator[str]:
    gym.register("GuessTheSign-v0", entry_point=lambda **_: GuessTheSign(), reward_threshold=7.5)
    yield "GuessTheSign-v0"
    gym.registry.pop("GuessTheSign-v0")


def run(config: TrainingConfig, seed: int = 0) -> tuple[Trainer, TrainingResult, list[Progress]]:
    trainer = Trainer(config, seed)
    reports = []
    while trainer.state.result is None:
        reports.append(trainer.step())
    return trainer, trainer.state.result, reports


@functools.cache
def default_run(seed: int) -> tuple[Trainer, TrainingResult, list[Progress]]:
    """The default preset; tests share the run and leave it as it is."""
    return run(PRESETS["ppo"], seed)


@functools.cache
def short_run() -> tuple[Trainer, TrainingResult, list[Progress]]:
    """The default preset with a budget of two updates, shared like `default_run`."""
    return run(dataclasses.replace(PRESETS["ppo"], max_env_steps=2_000, evaluation_episodes=20))


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
    _, result, reports = run(config)
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
    # 490 on every seed of docs/benchmarks.md, but other processors round otherwise
    assert result.sampled.mean >= 485.0
    assert result.greedy.episodes == result.sampled.episodes == 100
    endured = evaluate(
        result.policy,
        Environment("CartPole-v1", max_episode_steps=10_000),
        episodes=20,
        deterministic=True,
        rng=np.random.default_rng(seed),
    )
    assert endured.mean >= 9_000
    assert trainer.state.env_steps == reports[-1].env_steps < PRESETS["ppo"].max_env_steps


class MadeUp:
    """Evaluations that are made up: of means, or of means and their worst episodes."""

    def __init__(self, *results: float | tuple[float, float]) -> None:
        self.results = iter(results)
        self.evaluated: list[Policy] = []

    def __call__(self, policy: Policy, _environment: Environment, **_: object) -> Evaluation:
        self.evaluated.append(policy)
        result = next(self.results)
        mean, minimum = result if isinstance(result, tuple) else (result, 1.0)  # far below
        return Evaluation(1, mean, 0.0, minimum, (mean, mean))


def run_on(
    made_up: MadeUp, env_id: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[Trainer, TrainingResult]:
    """A run that evaluates after every update, and three times after the first that passes."""
    monkeypatch.setattr("training.trainer.evaluate", made_up)
    config = dataclasses.replace(
        PRESETS["ppo"],
        env_id=env_id,
        num_envs=2,
        evaluation_interval=1,
        patience=3,
        endurance_steps=None,
    )
    trainer, result, _ = run(config)
    assert next(made_up.results, None) is None
    return trainer, result


def test_the_exported_policy_is_the_best_and_not_the_last(
    tiny_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 7.6, then 8.0, then worse until patience is spent; sampled first, then greedy
    made_up = MadeUp(7.6, 7.6, 8.0, 8.0, 7.7, 7.7, 7.7, 7.7, 7.9, 7.9)
    trainer, result = run_on(made_up, tiny_env, monkeypatch)
    assert trainer.state.update == 4  # the first pass and three more
    assert result.policy is made_up.evaluated[2]
    assert made_up.evaluated[8] is made_up.evaluated[9] is result.policy  # once more, at the end
    assert result.greedy.mean == 7.9


def test_a_policy_with_a_margin_ends_the_run_even_if_another_has_a_larger_mean(
    tiny_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the threshold is 7.5: the first has the larger means, but no margin
    made_up = MadeUp(8.0, 8.0, (7.6, 7.5), (7.6, 7.5), 7.6, 7.6)
    trainer, result = run_on(made_up, tiny_env, monkeypatch)
    assert trainer.state.update == 2
    assert result.policy is made_up.evaluated[2]


@pytest.mark.parametrize("worst", ["sampled", "greedy"])
def test_a_margin_needs_every_episode_of_both_evaluations(
    worst: str, tiny_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, whole = (7.6, 7.4), (7.6, 7.6)
    first = (short, whole) if worst == "sampled" else (whole, short)
    made_up = MadeUp(*first, whole, whole, 7.6, 7.6)
    trainer, result = run_on(made_up, tiny_env, monkeypatch)
    assert trainer.state.update == 2
    assert result.policy is made_up.evaluated[2]


def test_a_policy_that_fails_its_final_evaluation_is_forgotten_and_the_run_goes_on(
    tiny_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up = MadeUp(
        *((8.0, 8.0), (8.0, 8.0)),  # update 1: a margin
        *(7.0, 8.0),  # but the fresh greedy episodes fail
        *(7.6, 7.6, 7.0, 7.0, 7.0),  # updates 2 to 5: one passes, then patience is spent
        *(7.6, 7.6),
    )
    trainer, result = run_on(made_up, tiny_env, monkeypatch)
    assert trainer.state.update == 5
    assert result.solved
    assert result.policy is made_up.evaluated[4]  # of update 2, worse than the forgotten one
    assert (trainer.state.best, trainer.state.evaluations_since_pass) == (None, 0)


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
    (_, first, first_reports), (_, second, second_reports) = run(config, 11), run(config, 11)
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
    _, _, reports = run(config)
    # the steps of a rollout count before it is learned from
    expected = [0.3 * max(0.0, 1 - report.env_steps / 3_000) for report in reports]
    assert [report.learning_rate for report in reports] == pytest.approx(expected)
    assert reports[-1].learning_rate == 0.0


def test_only_cartpole_as_it_is_can_be_pushed(tiny_env: str) -> None:
    for changes in ({"env_id": tiny_env}, {"env_kwargs": {"sutton_barto_reward": True}}):
        with pytest.raises(ConfigError, match="push_standard_deviation"):
            Trainer(dataclasses.replace(PRESETS["robust"], **changes), 0)
    assert change(PRESETS["robust"], {"env_id": tiny_env}).push_standard_deviation == 0.0


@pytest.mark.long  # half a minute
@pytest.mark.parametrize("seed", [0, 1])
def test_the_robust_preset_withstands_pushes_and_all_else(seed: int) -> None:
    config = PRESETS["robust"]
    trainer, result, _ = run(config, seed)
    assert result.solved
    assert trainer.state.env_steps >= config.max_env_steps  # no pass ends it
    assert result.greedy.minimum == 500.0
    assert result.sampled.mean >= 490.0
    tested = robustness(result.policy, config.environment)
    assert tested["pushes"].mean >= 350.0
    assert tested["long_episodes"].minimum == 10_000.0


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
    _, result, reports = run(config)
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


def test_without_a_threshold_the_best_of_all_evaluated_policies_is_kept(
    tiny_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gym.spec(tiny_env).reward_threshold = None
    # sampled and greedy of three updates; the second scores most, and is evaluated once more
    made_up = MadeUp(1.0, 2.0, 5.0, 4.0, 3.9, 9.0, 4.5, 4.6)
    monkeypatch.setattr("training.trainer.evaluate", made_up)
    config = dataclasses.replace(
        PRESETS["ppo"],
        env_id=tiny_env,
        num_envs=2,
        max_env_steps=150,
        evaluation_interval=1,
        patience=1,
        endurance_steps=None,
    )
    trainer, result, _ = run(config)
    assert next(made_up.results, None) is None
    assert trainer.state.update == 3  # to the end of the budget, whatever the patience
    assert trainer.reward_threshold is None
    assert result.policy is made_up.evaluated[2]
    assert result.solved
    assert (result.greedy.mean, result.sampled.mean) == (4.5, 4.6)


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
    trainer, result, _ = run(config, seed=1)
    assert result.solved
    assert trainer.state.env_steps < 60_000
    assert result.policy.normalization is not None
    np.testing.assert_allclose(result.policy.normalization.mean, 5_000, rtol=0.1)


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
    expected_trainer, expected, expected_reports = run(config)
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


def test_a_loss_that_is_not_finite_ends_the_run(tiny_env: str) -> None:
    config = dataclasses.replace(PRESETS["ppo"], env_id=tiny_env, num_envs=4, learning_rate=1e38)
    trainer = Trainer(config, 0)
    with pytest.raises(NotFiniteError, match=r"update \d: \w+ is (nan|inf|-inf)"):
        trainer.step()
