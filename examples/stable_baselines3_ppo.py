"""A policy that stable-baselines3 learned, as a TensorFlow function, exported to be served.

    make .peers/stable-baselines3/installed
    .peers/stable-baselines3/bin/python examples/stable_baselines3_ppo.py [--models models]

The first command makes a virtual environment with stable-baselines3, torch and what training needs.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import tensorflow as tf
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

if __name__ == "__main__":  # sys.path[0] of a script is its folder, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from training.config import Environment
from training.export import export


def train(seed: int) -> Any:
    """Train with rl-zoo3's hyperparameters (`hyperparams/ppo.yml`) for its 100,000 steps.

    Returns:
        The `MlpPolicy`.
    """
    torch.set_num_threads(1)  # as fast for networks this small
    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", n_envs=8, seed=seed),
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
    return model.learn(100_000).policy


def in_tensorflow(policy: Any) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Rebuild an `MlpPolicy` that has the default layers and activation."""
    weights = {name: tf.constant(value.numpy()) for name, value in policy.state_dict().items()}

    def dense(name: str, inputs: tf.Tensor) -> tf.Tensor:
        return inputs @ tf.transpose(weights[f"{name}.weight"]) + weights[f"{name}.bias"]

    def trunk(name: str, inputs: tf.Tensor) -> tf.Tensor:
        hidden = tf.tanh(dense(f"mlp_extractor.{name}.0", inputs))
        return tf.tanh(dense(f"mlp_extractor.{name}.2", hidden))

    def function(observations: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = dense("action_net", trunk("policy_net", observations))
        return logits, dense("value_net", trunk("value_net", observations))[:, 0]

    return function


def check(function: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], policy: Any) -> None:
    """Compare with what torch computes; AssertionError if it differs."""
    rows = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    logits, values = function(tf.constant(rows))
    with torch.no_grad():
        # torch's logits of a distribution are log-probabilities.
        log_probs = policy.get_distribution(torch.tensor(rows)).distribution.logits
        torch_values = policy.predict_values(torch.tensor(rows))[:, 0]
    np.testing.assert_allclose(tf.nn.log_softmax(logits), log_probs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(values, torch_values, rtol=1e-4, atol=1e-4)


@click.command()
@click.option("--models", default="models", type=click.Path(path_type=Path))
@click.option("--seed", default=0)
def main(models: Path, seed: int) -> None:
    """Train, and export to the next version of MODELS/cartpole-sb3."""
    policy = train(seed)
    function = in_tensorflow(policy)
    check(function, policy)
    click.echo(export(models / "cartpole-sb3", function, Environment("CartPole-v1"), seed=seed))


if __name__ == "__main__":
    main()
