"""What a search varies: hyperparameters proposed, written to a file, and scored."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FixedTrial, TrialState

from training.config import ConfigError
from training.config_options import change, chosen_config, to_toml, to_values
from training.presets import PRESETS
from training.search import SPACE, differences, propose, searched
from training.train_command import train
from training.trial import mean_between, score, scores_by_point


def test_what_is_given_or_has_no_effect_is_not_searched() -> None:
    ppo, a2c, notebook = (PRESETS[name] for name in ("ppo", "a2c", "notebook"))
    assert searched(ppo, ()) == list(SPACE)
    assert set(SPACE) - set(searched(ppo, ["gamma", "num_envs"])) == {"gamma"}
    plain = {"clip_coef", "num_epochs", "num_minibatches"}
    assert set(SPACE) - set(searched(a2c, ())) == plain
    assert set(SPACE) - set(searched(notebook, ())) == {*plain, "gae_lambda", "num_steps"}


LOWEST: dict[str, Any] = {
    "log2_num_steps": 4,
    "one_minus_gamma": 0.001,
    "gae_lambda": 0.8,
    "log2_hidden_units_1": 5,
    "log2_hidden_units_2": 6,
    "hidden_layers": 1,
    "learning_rate": 0.000123456,
    "num_epochs": 3,
    "log2_num_minibatches": 5,
    "clip_coef": 0.1,
    "ent_coef": 1e-8,
    "max_grad_norm": 0.3,
}


OF_64_STEPS = {"log2_num_steps": 6}


def test_a_proposal_evaluates_as_often_in_environment_steps() -> None:
    ppo = PRESETS["ppo"]  # evaluates every 5 rollouts of 32 steps in 32 environments
    proposed = propose(ppo, list(SPACE), FixedTrial(LOWEST))
    assert (proposed.num_steps, proposed.evaluation_interval) == (16, 10)
    assert (proposed.gamma, proposed.hidden_units, proposed.num_minibatches) == (0.999, (32,), 32)
    assert proposed.learning_rate == 0.000123
    longest = propose(
        ppo, list(SPACE), FixedTrial({**LOWEST, "log2_num_steps": 9, "hidden_layers": 2})
    )
    assert (longest.num_steps, longest.evaluation_interval) == (512, 1)
    assert longest.hidden_units == (32, 64)
    # 3 rollouts of 32 steps are 1.5 of 64: rounded, which is to the even number.
    rounded = propose(
        change(ppo, {"evaluation_interval": 3}), list(SPACE), FixedTrial({**LOWEST, **OF_64_STEPS})
    )
    assert (rounded.num_steps, rounded.evaluation_interval) == (64, 2)


def test_values_that_do_not_go_together_are_pruned() -> None:
    config = change(PRESETS["ppo"], {"num_envs": 1, "num_minibatches": 8})
    with pytest.raises(ConfigError):
        propose(config, list(SPACE), FixedTrial(LOWEST))
    study = optuna.create_study()
    study.enqueue_trial(LOWEST)
    study.optimize(lambda trial: score(trial, config, list(SPACE), 1), n_trials=1)
    (trial,) = study.trials
    assert trial.state is TrialState.PRUNED
    assert trial.user_attrs["reason"].startswith("num_minibatches is 32, more than the 16 samples")


def test_the_curve_is_a_step_function() -> None:
    curve = [(0, 10.0), (100, 20.0), (300, 40.0)]
    assert mean_between(curve, 0, 100) == 10.0
    assert mean_between(curve, 50, 150) == 15.0
    assert mean_between(curve, 0, 400) == (10 * 100 + 20 * 200 + 40 * 100) / 400
    assert mean_between(curve, 1000, 1010) == 40.0


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"learning_rate": 1e-5, "ent_coef": 3.2e-8, "max_grad_norm": None, "trunk": "separate"},
        {"normalize_advantages": False, "hidden_units": [1], "return_bounds": [-0.5, 1e22]},
        {"env_id": "own:Plain-v0", "normalize_observations": False, "scale_rewards": False},
        {"env_kwargs": {'a "b"\\\n\x7f\x01': [1, 2.0, True, "é😀 = #", {"c": {}}]}},
        {"observation_names": ["a, b", "c]"], "wrappers": ["own:wrap"]},
    ],
)
def test_a_file_of_hyperparameters_gives_the_same_config(
    values: dict[str, Any], tmp_path: Path
) -> None:
    config = change(PRESETS["ppo"], values)
    path = tmp_path / "best.toml"
    path.write_text(to_toml(differences(config, PRESETS["ppo"])))
    context = train.make_context("train", ["--config", str(path)])
    assert to_values(chosen_config(context, "ppo", path)) == to_values(config)


def test_the_score_of_a_part_of_the_budget_is_of_that_part_alone() -> None:
    budget = 600_000  # learned in a tenth of it
    scores = list(scores_by_point(change(PRESETS["ppo"], {"max_env_steps": budget}), 1))
    assert scores[0] < 400
    assert scores[-10:] == [scores[-1]] * 10  # not drawn down by what came before
    assert scores[-1] > 475
