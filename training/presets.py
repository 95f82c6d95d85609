"""The presets that users name: an algorithm with hyperparameters tuned for one environment."""

from dataclasses import replace
from typing import Any, Literal

from training.config import TrainingConfig

Preset = Literal["ppo", "robust", "a2c", "notebook", "acrobot", "lunarlander"]

# Replaces values of a preset for an environment other than the one that it was tuned on.
FOR_OTHER_ENVIRONMENTS: dict[str, Any] = {
    "endurance_steps": None,
    "return_bounds": None,
    "push_standard_deviation": 0.0,
    "normalize_observations": True,
    "scale_rewards": True,
}

# Schulman et al. 2017, "Proximal Policy Optimization Algorithms".
_PPO = TrainingConfig(
    env_id="CartPole-v1",
    num_envs=32,
    num_steps=32,
    max_env_steps=200_000,
    gamma=0.99,
    gae_lambda=0.95,
    hidden_units=(64,),
    activation="tanh",
    learning_rate=5e-3,
    adam_epsilon=1e-5,
    num_epochs=10,
    num_minibatches=8,
    clip_coef=0.2,
    normalize_advantages=True,
    vf_coef=0.5,
    max_grad_norm=0.5,
    evaluation_interval=5,
    return_bounds=(0.0, 500.0),
    endurance_steps=10_000,
)

PRESETS: dict[Preset, TrainingConfig] = {
    "ppo": _PPO,
    # PPO that is pushed while it learns. It uses its whole budget: the policies that withstand
    # pushes best come late, at a small learning rate.
    "robust": replace(
        _PPO,
        push_standard_deviation=0.5,
        num_steps=128,
        max_env_steps=1_000_000,
        gamma=0.995,
        learning_rate=2e-3,
        anneal_learning_rate=True,
        num_minibatches=16,
        evaluation_interval=25,
    ),
    # Mnih et al. 2016, "Asynchronous Methods for Deep Reinforcement Learning", in its
    # synchronous form, with Adam in place of RMSProp and GAE in place of n-step returns.
    "a2c": TrainingConfig(
        env_id="CartPole-v1",
        num_envs=32,
        num_steps=8,
        max_env_steps=1_000_000,
        gamma=0.99,
        gae_lambda=0.95,
        hidden_units=(64,),
        activation="tanh",
        learning_rate=5e-3,
        adam_epsilon=1e-5,
        vf_coef=0.5,
        max_grad_norm=0.5,
        evaluation_interval=100,
        return_bounds=(0.0, 500.0),
        checkpoint_interval=500,
    ),
    # PPO for Acrobot-v1, whose reward of -1 per step needs a longer rollout.
    "acrobot": replace(
        _PPO,
        env_id="Acrobot-v1",
        num_steps=64,
        max_env_steps=1_000_000,
        learning_rate=3e-3,
        evaluation_interval=10,
        return_bounds=(-500.0, 0.0),
        endurance_steps=None,
        patience=5,
    ),
    # PPO for LunarLander-v3, found by `python -m training tune`: see docs/benchmarks.md.
    "lunarlander": replace(
        _PPO,
        env_id="LunarLander-v3",
        num_envs=16,
        num_steps=64,
        max_env_steps=1_000_000,
        gamma=0.992,
        gae_lambda=0.928,
        scale_rewards=True,
        hidden_units=(256, 64),
        learning_rate=3.6e-4,
        num_epochs=12,
        num_minibatches=16,
        clip_coef=0.195,
        evaluation_interval=20,
        return_bounds=None,
        endurance_steps=None,
        patience=5,
    ),
    # The notebook that this project began with, flaws included: no activation, a critic that
    # is also trained through the actor's loss, and no bootstrap at the time limit.
    "notebook": TrainingConfig(
        env_id="CartPole-v0",
        num_envs=1,
        num_steps=1_000,
        whole_episodes=True,
        max_env_steps=10_000_000,
        max_episodes=10_000,
        estimator="monte_carlo",
        gamma=0.99,
        hidden_units=(128,),
        activation="linear",
        initializer="glorot_uniform",
        learning_rate=0.01,
        adam_epsilon=1e-7,
        differentiate_advantages=True,
        value_loss="huber",
        reduction="sum",
        vf_coef=1.0,
        evaluation_interval=10,
        return_bounds=(0.0, 200.0),
        checkpoint_interval=500,
        wait_for_running_return=True,
    ),
}
