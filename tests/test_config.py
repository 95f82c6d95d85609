"""Where hyperparameters come from: a preset, a file, the command line, and what is checked."""

import dataclasses
import datetime
import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from tests.conftest import ROOT, run
from training.config import ConfigError, TrainingConfig, config_from
from training.config_options import (
    FIELDS,
    HyperparameterCommand,
    change,
    chosen_config,
    config_options,
    option_name,
    to_values,
)
from training.presets import PRESETS

PPO = PRESETS["ppo"]


def chosen(*arguments: str) -> TrainingConfig:
    """The config of a command line that begins with the preset "ppo"."""
    configs: list[TrainingConfig] = []

    @click.command(cls=HyperparameterCommand)
    @config_options
    @click.pass_context
    def command(context: click.Context, /, config_file: Path | None, **_: object) -> None:
        configs.append(chosen_config(context, "ppo", config_file))

    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return configs[0]


def test_every_preset_is_a_config_that_passes_its_own_checks() -> None:
    for config in PRESETS.values():
        assert config_from(json.loads(json.dumps(to_values(config)))) == config


def test_every_hyperparameter_is_an_option_with_a_description() -> None:
    shown = run("training", "train", "--help").stdout
    _, _, hyperparameters = shown.partition("\nHyperparameters:\n")
    for name in FIELDS:
        (line,) = [
            line for line in hyperparameters.splitlines() if f" {option_name(name)} " in f"{line} "
        ]
        assert line
    for field in dataclasses.fields(TrainingConfig):
        assert "description" in str(field.type), field.name


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ([], {}),
        (["--num-envs", "8"], {"num_envs": 8}),
        (["--hidden-units", "64,32"], {"hidden_units": (64, 32)}),
        (["--clip-coef", "none"], {"clip_coef": None}),
        (["--no-normalize-advantages"], {"normalize_advantages": False}),
        (
            ["--trunk", "separate", "--activation", "relu"],
            {"trunk": "separate", "activation": "relu"},
        ),
        (["--return-bounds", "-1", "1e3"], {"return_bounds": (-1.0, 1000.0)}),
        (["--action-names", "left,right"], {"action_names": ("left", "right")}),
        (["--reward-threshold", "-3.5"], {"reward_threshold": -3.5}),
        (["--learning-rate", "1e-3"], {"learning_rate": 0.001}),
    ],
)
def test_options_change_the_preset(arguments: list[str], changes: dict[str, Any]) -> None:
    assert chosen(*arguments) == dataclasses.replace(PPO, **changes)


def test_a_file_changes_the_preset_and_the_command_line_changes_both(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        'gamma = 0.9\nnum_envs = 4\nhidden_units = [8, 8]\nclip_coef = "none"\n'
        "return_bounds = [0, 10]\n"
    )
    assert chosen("--config", str(file), "--num-envs", "5") == dataclasses.replace(
        PPO, gamma=0.9, num_envs=5, hidden_units=(8, 8), clip_coef=None, return_bounds=(0.0, 10.0)
    )


def test_the_file_of_the_documentation_is_one(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "own.md").read_text()
    (toml,) = re.findall(r"^```toml\n(.*?)^```", document, re.DOTALL | re.MULTILINE)
    file = tmp_path / "mine.toml"
    file.write_text(toml)
    config = chosen("--config", str(file))
    assert (config.hidden_units, config.trunk, config.clip_coef) == ((64, 64), "separate", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--env-id", "Acrobot-v1"],
        ["--wrapper", "a:b"],
        ["--env-kwargs", '{"sutton_barto_reward": true}'],
        ["--max-episode-steps", "200"],
    ],
)
def test_what_was_tuned_for_the_presets_environment_goes_with_another(arguments: list[str]) -> None:
    config = chosen(*arguments)
    assert (config.endurance_steps, config.return_bounds) == (None, None)
    assert config.normalize_observations
    assert config.scale_rewards
    given = chosen(*arguments, "--endurance-steps", "50", "--no-normalize-observations")
    assert given.endurance_steps == 50
    assert not given.normalize_observations


def test_what_belongs_to_an_environment_stays_with_it() -> None:
    of_cartpole = {
        "env_kwargs": {"sutton_barto_reward": True},
        "max_episode_steps": 50,
        "wrappers": ["a:b"],
        "observation_names": ["a", "b", "c", "d"],
        "action_names": ["left", "right"],
        "reward_threshold": 5.0,
    }
    config = change(PPO, of_cartpole)
    same, other = change(config, {"gamma": 0.5}), change(config, {"env_id": "Acrobot-v1"})
    for name in of_cartpole:
        assert getattr(same, name) == getattr(config, name)
        assert getattr(other, name) == getattr(PPO, name) != getattr(config, name)
    given = change(config, {"env_id": "Acrobot-v1", **of_cartpole})
    assert given.wrappers == ("a:b",)
    assert given.reward_threshold == 5.0


def test_wrappers_are_given_one_by_one() -> None:
    assert chosen("--wrapper", "a:b", "--wrapper", "c.d:e").wrappers == ("a:b", "c.d:e")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_env": 3}, "num_env is unknown: did you mean num_envs?"),
        ({"frobnicate": 3}, "frobnicate is unknown$"),
        ({"num_envs": 0}, "num_envs: Expected `int` >= 1"),
        ({"num_envs": 10**20}, "num_envs: Expected `int` <= 2147483647"),
        ({"num_steps": 10**18}, "num_steps: Expected `int` <= 2147483647"),
        ({"hidden_units": [64, 10**11]}, r"hidden_units\[1\]: Expected `int` <="),
        ({"num_epochs": 10**11}, "num_epochs: Expected `int` <="),
        ({"evaluation_episodes": 10**11}, "evaluation_episodes: Expected `int` <="),
        ({"num_envs": 2.5}, "num_envs: Expected `int`, got `float`"),
        ({"num_envs": True}, "num_envs: Expected `int`, got `bool`"),
        ({"gamma": float("nan")}, "gamma"),
        ({"learning_rate": float("inf")}, "learning_rate is inf"),
        ({"reward_threshold": float("nan")}, "reward_threshold is nan"),
        ({"return_bounds": [0, float("inf")]}, "return_bounds is inf"),
        ({"return_bounds": [5, 5]}, "the smaller one first"),
        ({"hidden_units": []}, "hidden_units: Expected `array` of length >= 1"),
        ({"num_minibatches": 1025}, "more than the 1024 samples of a rollout"),
        ({"env_kwargs": {"render_mode": "human"}}, "env_kwargs cannot have render_mode"),
        (
            {"env_kwargs": {"start": datetime.date(2026, 1, 2)}},
            "type date is not JSON serializable",
        ),
        ({"env_kwargs": {"mass": float("nan")}}, "env_kwargs cannot be stored as JSON"),
        ({"env_kwargs": {"limits": [0, float("-inf")]}}, "env_kwargs cannot be stored as JSON"),
        ({"env_kwargs": {"name": "\ud800"}}, "env_kwargs cannot be .*surrogates not allowed"),
        ({"observation_names": ["a", "a"]}, "observation_names must all be different"),
        ({"action_names": ["a", ""]}, "action_names must all be different and not empty"),
        ({"observation_names": ["\udcff"]}, "observation_names cannot be .*surrogates not allowed"),
        ({"action_names": ["a", "\ud800"]}, "action_names cannot be .*surrogates not allowed"),
        ({"wrappers": ["import os"]}, "wrappers"),
        ({"wrappers": ["a:b\n"]}, "wrappers"),
    ],
)
def test_a_value_that_is_not_possible_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        change(PPO, values)
