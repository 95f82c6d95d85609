"""Environments that fail in a run: what they raise is not taken for something else."""

import dataclasses
import errno
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.envs.registration import EnvSpec

from tests.runs import SMALL, Silent, new_run, small_settings
from training.config import Environment
from training.run import UnexpectedError, run
from training.shares import WorkerError
from training.storing import reason_against_storing


class Failing(gym.Env[np.ndarray, np.int64]):
    """Raises an error in its first reset or its first step."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, error: Exception, where: str) -> None:
        self.error, self.where = error, where

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        if self.where == "reset":
            raise self.error
        return np.zeros(1, np.float32), {}

    def step(self, _: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        raise self.error


@pytest.mark.parametrize("where", ["reset", "step"])
@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/data/maps.bin"),
        tf.errors.InvalidArgumentError(None, None, "shapes"),
    ],
)
def test_an_environments_own_error_is_not_told_as_one_of_the_disk(
    error: Exception, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        gym.registry, "Failing-v0", EnvSpec("Failing-v0", partial(Failing, error, where))
    )
    folder, models = new_run(tmp_path)
    settings = small_settings(models)
    settings = settings._replace(config=dataclasses.replace(SMALL, env_id="Failing-v0"))
    with ThreadPoolExecutor(1) as drawing, pytest.raises(UnexpectedError, match=r"maps|shapes"):
        run(settings, folder, Silent(), lambda: False, drawing, with_environments=False)


@pytest.mark.usefixtures("own_environments")
def test_an_environment_that_ends_the_program_is_an_error_before_the_run() -> None:
    with pytest.raises(WorkerError, match=r"ended the program: SystemExit\(0\)"):
        reason_against_storing(Environment("own:Exiting-v0"))
