"""An environment of one's own: `--env-id pole:Pole-v0` imports this and finds it."""

import gymnasium as gym

gym.register(
    "Pole-v0",
    entry_point="pole.environment:Pole",
    max_episode_steps=500,
    reward_threshold=475.0,
)
