"""One run of stable-baselines3, in the virtual environment that pins it.

    python sb3_contender.py ppo CartPole-v1|Acrobot-v1|LunarLander-v3 SEED
    python sb3_contender.py a2c|ppo_full CartPole-v1 SEED

The hyperparameters are rl-zoo3's (`hyperparams/ppo.yml`, `hyperparams/a2c.yml`). The result is one
JSON object on standard output; `benchmarks/training_report.py` defines its fields. `ppo_full`
trains for the whole budget without evaluations, as rl-zoo3 does, and is evaluated once at the end.
"""

import dataclasses
import json
import sys
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

EVALUATION_EPISODES = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How one algorithm is run on one environment."""

    num_envs: int
    max_env_steps: int
    evaluation_interval: int  # environment steps
    normalize: bool = False  # observations and rewards
    arguments: dict[str, Any]  # of the algorithm


SETTINGS = {
    ("ppo", "CartPole-v1"): Setting(
        num_envs=8,
        max_env_steps=100_000,
        evaluation_interval=2_048,
        arguments={
            "n_steps": 32,
            "batch_size": 256,
            "gae_lambda": 0.8,
            "gamma": 0.98,
            "n_epochs": 20,
            "ent_coef": 0.0,
            "learning_rate": lambda remaining: 0.001 * remaining,
            "clip_range": lambda remaining: 0.2 * remaining,
        },
    ),
    ("a2c", "CartPole-v1"): Setting(
        num_envs=8,
        max_env_steps=500_000,
        evaluation_interval=2_048,
        arguments={"ent_coef": 0.0},
    ),
    ("ppo", "Acrobot-v1"): Setting(
        num_envs=16,
        max_env_steps=1_000_000,
        evaluation_interval=20_480,
        normalize=True,
        arguments={
            "n_steps": 256,
            "gae_lambda": 0.94,
            "gamma": 0.99,
            "n_epochs": 4,
            "ent_coef": 0.0,
        },
    ),
    ("ppo", "LunarLander-v3"): Setting(
        num_envs=16,
        max_env_steps=1_000_000,
        evaluation_interval=20_480,
        arguments={
            "n_steps": 1_024,
            "batch_size": 64,
            "gae_lambda": 0.98,
            "gamma": 0.999,
            "n_epochs": 4,
            "ent_coef": 0.01,
        },
    ),
}


def make_model(algorithm: str, env_id: str, seed: int) -> OnPolicyAlgorithm:
    """Make the environments and an untrained model."""
    # Networks this small gain little from a second thread (PPO 5%, A2C loses 8%), and with
    # more threads than idle cores both stall for seconds.
    torch.set_num_threads(1)
    setting = SETTINGS[algorithm, env_id]
    # One process steps all environments: for CartPole this is faster than one process each.
    env = make_vec_env(env_id, n_envs=setting.num_envs, seed=seed)
    if setting.normalize:
        env = VecNormalize(env, gamma=setting.arguments["gamma"])
    make = {"a2c": A2C, "ppo": PPO}[algorithm]
    return make("MlpPolicy", env, seed=seed, device="cpu", **setting.arguments)


class SteppedOneByOne:
    """Environments that are stepped one after another, each only until its episode ends.

    It has the part of `gymnasium.vector.VectorEnv` that is used here.
    """

    def __init__(self, env_id: str) -> None:
        self._envs = [gym.make(env_id) for _ in range(EVALUATION_EPISODES)]

    def reset(self, seed: int | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in each environment; environment `i` gets `seed + i`."""
        seeds = [None if seed is None else seed + i for i in range(EVALUATION_EPISODES)]
        first = [env.reset(seed=one)[0] for env, one in zip(self._envs, seeds, strict=True)]
        self._observations, self._running = np.stack(first), np.ones(EVALUATION_EPISODES, bool)
        return self._observations.copy(), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step the environments whose episode continues."""
        rewards = np.zeros(EVALUATION_EPISODES)
        terminated, truncated = np.zeros((2, EVALUATION_EPISODES), bool)
        for i in np.flatnonzero(self._running):
            step = self._envs[i].step(actions[i])
            self._observations[i], rewards[i], terminated[i], truncated[i], _ = step
        self._running &= ~(terminated | truncated)
        return self._observations.copy(), rewards, terminated, truncated, {}


class FirstPass(BaseCallback):
    """Evaluates every `evaluation_interval` steps and ends training at the first pass.

    With `whole_budget` it evaluates only after the last step.

    Attributes:
        passed: whether the last evaluation reached the threshold, sampled and greedy.
        env_steps: environment steps before the last evaluation.
        stopped: when the last evaluation ended.
        evaluation_seconds: of all evaluations.
        sampled: mean return of the last evaluation.
        greedy: the same with greedy actions; None if `sampled` did not reach the threshold.
    """

    def __init__(
        self, env_id: str, evaluation_interval: int, seed: int, *, whole_budget: bool
    ) -> None:
        super().__init__()
        spec = gym.spec(env_id)
        assert spec.reward_threshold is not None
        self._reward_threshold = spec.reward_threshold
        self._interval = evaluation_interval
        self._whole_budget = whole_budget
        self.passed = False
        self.env_steps = 0
        self.stopped = self.evaluation_seconds = self.sampled = 0.0
        self.greedy: float | None = None
        self._due = evaluation_interval
        self._env: Any
        if spec.vector_entry_point is None:
            self._env = SteppedOneByOne(env_id)
        else:
            self._env = gym.make_vec(
                env_id, num_envs=EVALUATION_EPISODES, vectorization_mode="vector_entry_point"
            )
        self._env.reset(seed=seed)

    def _on_rollout_start(self) -> None:
        # Not at the end of a rollout, which has not been learned from yet.
        if self.num_timesteps >= self._due and not self._whole_budget:
            self._due += self._interval
            self._evaluate()

    def _on_step(self) -> bool:
        return not self.passed

    def _on_training_end(self) -> None:
        if not self.passed:
            self._evaluate()

    def _evaluate(self) -> None:
        started = time.perf_counter()
        self.greedy = None
        self.sampled = self._mean_return(deterministic=False)
        if self.sampled >= self._reward_threshold:
            self.greedy = self._mean_return(deterministic=True)
            self.passed = self.greedy >= self._reward_threshold
        self.env_steps = self.num_timesteps
        self.stopped = time.perf_counter()
        self.evaluation_seconds += self.stopped - started

    def _mean_return(self, *, deterministic: bool) -> float:
        """Play the first episode of each environment."""
        normalization = self.model.get_vec_normalize_env()
        observations, _ = self._env.reset()
        returns = np.zeros(EVALUATION_EPISODES)
        running = np.ones(EVALUATION_EPISODES, bool)
        while running.any():
            if normalization is not None:  # with the statistics of training, which stay the same
                observations = normalization.normalize_obs(observations)
            actions, _ = self.model.predict(observations, deterministic=deterministic)
            observations, rewards, terminated, truncated, _ = self._env.step(actions)
            returns += rewards * running
            running &= ~(terminated | truncated)
        return float(returns.mean())


def run(contender: str, env_id: str, seed: int) -> dict[str, Any]:
    """Train until the first pass or the end of the budget."""
    algorithm = contender.removesuffix("_full")
    setting = SETTINGS[algorithm, env_id]
    began = time.perf_counter()
    whole_budget = contender != algorithm
    callback = FirstPass(env_id, setting.evaluation_interval, seed, whole_budget=whole_budget)
    model = make_model(algorithm, env_id, seed)
    started = time.perf_counter()
    model.learn(setting.max_env_steps, callback)  # begins with the first reset
    seconds = callback.stopped - started
    return {
        "passed": callback.passed,
        "env_steps": callback.env_steps,
        "setup_seconds": started - began,
        "seconds": seconds,
        "learning_seconds": seconds - callback.evaluation_seconds,
        "greedy": callback.greedy,
        "sampled": callback.sampled,
    }


if __name__ == "__main__":
    json.dump(run(sys.argv[1], sys.argv[2], int(sys.argv[3])), sys.stdout)
