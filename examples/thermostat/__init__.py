"""A custom environment: `--env-id thermostat:Thermostat-v0` imports this, which registers it."""

import gymnasium as gym

gym.register("Thermostat-v0", entry_point="thermostat.environment:Thermostat", max_episode_steps=96)
