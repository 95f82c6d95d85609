"""Which policy a run chooses, with evaluations that are made up."""

import dataclasses

import gymnasium as gym
import pytest

from tests.runs import run_trainer
from training.config import Environment
from training.evaluation import Evaluation
from training.model import Policy
from training.presets import PRESETS
from training.state import TrainingResult
from training.trainer import Trainer


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
    monkeypatch.setattr("training.evaluator.evaluate", made_up)
    config = dataclasses.replace(
        PRESETS["ppo"],
        env_id=env_id,
        num_envs=2,
        evaluation_interval=1,
        patience=3,
        endurance_steps=None,
    )
    trainer, result, _ = run_trainer(config)
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


def test_without_a_threshold_the_best_of_all_evaluated_policies_is_kept(
    tiny_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gym.spec(tiny_env).reward_threshold = None
    # sampled and greedy of three updates; the second scores most, and is evaluated once more
    made_up = MadeUp(1.0, 2.0, 5.0, 4.0, 3.9, 9.0, 4.5, 4.6)
    monkeypatch.setattr("training.evaluator.evaluate", made_up)
    config = dataclasses.replace(
        PRESETS["ppo"],
        env_id=tiny_env,
        num_envs=2,
        max_env_steps=150,
        evaluation_interval=1,
        patience=1,
        endurance_steps=None,
    )
    trainer, result, _ = run_trainer(config)
    assert next(made_up.results, None) is None
    assert trainer.state.update == 3  # to the end of the budget, whatever the patience
    assert trainer.reward_threshold is None
    assert result.policy is made_up.evaluated[2]
    assert result.solved
    assert (result.greedy.mean, result.sampled.mean) == (4.5, 4.6)


def test_only_a_policy_that_may_end_the_run_is_found_before_its_endurance_test(
    tiny_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the first has no margin, the second does
    made_up = MadeUp(8.0, 8.0, (7.6, 7.5), (7.6, 7.5), 7.6, 7.6)
    monkeypatch.setattr("training.evaluator.evaluate", made_up)
    config = dataclasses.replace(
        PRESETS["ppo"], env_id=tiny_env, num_envs=2, evaluation_interval=1, endurance_steps=None
    )
    found: list[Policy] = []
    trainer = Trainer(config, 0, found=found.append)
    while trainer.state.result is None:
        trainer.step()
    assert found == [trainer.state.result.policy]
