"""A custom environment: `--env-id cart:Cart-v0` imports this package, which registers it."""

import gymnasium as gym

gym.register(
    "Cart-v0",
    entry_point="cart.environment:Cart",
    max_episode_steps=500,
    reward_threshold=475.0,
)
