"""One run of stable-baselines3 on CartPole-v1, in the virtual environment that pins it.

    python sb3_contender.py ppo|a2c|ppo_full SEED

The hyperparameters are rl-zoo3's (`hyperparams/ppo.yml`, `hyperparams/a2c.yml`). The result is one
JSON object on standard output; `benchmarks/training_comparison.py` defines its fields. `ppo_full`
trains for the whole budget without evaluations, as rl-zoo3 does, and is evaluated once at the end.
"""

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

ENV_ID = "CartPole-v1"
NUM_ENVS = 8
REWARD_THRESHOLD = 475.0
EVALUATION_INTERVAL = 2_048  # environment steps
EVALUATION_EPISODES = 100
MAX_ENV_STEPS = {"ppo": 100_000, "a2c": 500_000}


def make_model(algorithm: str, seed: int) -> OnPolicyAlgorithm:
    """Make `NUM_ENVS` environments and an untrained model."""
    # Networks this small gain little from a second thread (PPO 5%, A2C loses 8%), and with
    # more threads than idle cores both stall for seconds.
    torch.set_num_threads(1)
    # One process steps all environments: for CartPole this is faster than one process each.
    env = make_vec_env(ENV_ID, n_envs=NUM_ENVS, seed=seed)
    if algorithm == "a2c":
        return A2C("MlpPolicy", env, ent_coef=0.0, seed=seed, device="cpu")
    return PPO(
        "MlpPolicy",
        env,
        n_steps=32,
        batch_size=256,
        gae_lambda=0.8,
        gamma=0.98,
        n_epochs=20,
        ent_coef=0.0,
        learning_rate=lambda remaining: 0.001 * remaining,
        clip_range=lambda remaining: 0.2 * remaining,
        seed=seed,
        device="cpu",
    )


class FirstPass(BaseCallback):
    """Evaluates every `EVALUATION_INTERVAL` steps and ends training at the first pass.

    With `whole_budget` it evaluates only after the last step.

    Attributes:
        passed: whether the last evaluation reached the threshold, sampled and greedy.
        env_steps: environment steps before the last evaluation.
        stopped: when the last evaluation ended.
        evaluation_seconds: of all evaluations.
        sampled: mean return of the last evaluation.
        greedy: the same; None if the sampled one did not reach the threshold.
    """

    def __init__(self, seed: int, *, whole_budget: bool) -> None:
        super().__init__()
        self._whole_budget = whole_budget
        self.passed = False
        self.env_steps = 0
        self.stopped = self.evaluation_seconds = self.sampled = 0.0
        self.greedy: float | None = None
        self._due = EVALUATION_INTERVAL
        self._env = gym.make_vec(
            ENV_ID, num_envs=EVALUATION_EPISODES, vectorization_mode="vector_entry_point"
        )
        self._env.reset(seed=seed)

    def _on_rollout_start(self) -> None:
        # Not at the end of a rollout, which has not been learned from yet.
        if self.num_timesteps >= self._due and not self._whole_budget:
            self._due += EVALUATION_INTERVAL
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
        if self.sampled >= REWARD_THRESHOLD:
            self.greedy = self._mean_return(deterministic=True)
            self.passed = self.greedy >= REWARD_THRESHOLD
        self.env_steps = self.num_timesteps
        self.stopped = time.perf_counter()
        self.evaluation_seconds += self.stopped - started

    def _mean_return(self, *, deterministic: bool) -> float:
        """Play the first episode of each environment."""
        observations, _ = self._env.reset()
        returns = np.zeros(EVALUATION_EPISODES)
        running = np.ones(EVALUATION_EPISODES, bool)
        while running.any():
            actions, _ = self.model.predict(observations, deterministic=deterministic)
            observations, rewards, terminated, truncated, _ = self._env.step(actions)
            returns += rewards * running
            running &= ~(terminated | truncated)
        return float(returns.mean())


def run(contender: str, seed: int) -> dict[str, Any]:
    """Train until the first pass or the end of the budget."""
    algorithm = contender.removesuffix("_full")
    began = time.perf_counter()
    callback = FirstPass(seed, whole_budget=contender != algorithm)
    model = make_model(algorithm, seed)
    started = time.perf_counter()
    model.learn(MAX_ENV_STEPS[algorithm], callback)  # begins with the first reset
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
    json.dump(run(sys.argv[1], int(sys.argv[2])), sys.stdout)
