"""The actor-critic of TensorFlow's tutorial, in Keras, learned with PPO and exported.

    python examples/keras_actor_critic.py [--models models] [--seed 0]

The network is the one of "Playing CartPole with the actor-critic method". The tutorial learns from
one episode at a time, and not every run succeeds; this is PPO (Schulman et al. 2017) instead.
"""

import sys
from pathlib import Path
from typing import Any

import click
import gymnasium as gym
import keras
import numpy as np
import tensorflow as tf

if __name__ == "__main__":  # sys.path[0] of a script is its folder, not the project's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from training.config import Environment
from training.export import export

NUM_ENVS, NUM_STEPS, UPDATES, EPOCHS, MINIBATCHES = 32, 32, 80, 8, 8
GAMMA, GAE_LAMBDA, CLIP, LEARNING_RATE = 0.99, 0.95, 0.2, 3e-3


class ActorCritic(keras.Model):
    """Combined actor-critic network."""

    def __init__(self, num_actions: int, num_hidden_units: int) -> None:
        super().__init__()
        self.common = keras.layers.Dense(num_hidden_units, activation="relu")
        self.actor = keras.layers.Dense(num_actions)
        self.critic = keras.layers.Dense(1)

    def call(self, inputs: Any) -> tuple[Any, Any]:
        """Map observations `[B, O]` to action logits `[B, A]` and state values `[B]`."""
        x = self.common(inputs)
        return self.actor(x), self.critic(x)[:, 0]


def train(model: ActorCritic, seed: int) -> None:
    """Play and learn in turn, with a learning rate that decreases to 0."""
    env = gym.make_vec("CartPole-v1", NUM_ENVS, vectorization_mode="vector_entry_point")
    num_steps = UPDATES * EPOCHS * MINIBATCHES
    rate = keras.optimizers.schedules.PolynomialDecay(LEARNING_RATE, num_steps, 0.0)
    optimizer = keras.optimizers.Adam(rate, epsilon=1e-5, global_clipnorm=0.5)
    negative_log_probs = tf.nn.sparse_softmax_cross_entropy_with_logits

    @tf.function
    def play(observations: Any) -> tuple[Any, Any, Any]:
        logits, values = model(observations)
        actions = tf.random.categorical(logits, 1)[:, 0]
        return actions, negative_log_probs(actions, logits), values

    @tf.function(reduce_retracing=True)
    def learn(observations: Any, actions: Any, before: Any, advantages: Any, returns: Any) -> None:
        with tf.GradientTape() as tape:
            logits, values = model(observations)
            ratio = tf.exp(before - negative_log_probs(actions, logits))
            clipped = tf.clip_by_value(ratio, 1 - CLIP, 1 + CLIP)
            surrogate = tf.minimum(ratio * advantages, clipped * advantages)
            loss = tf.reduce_mean(0.25 * (returns - values) ** 2 - surrogate)
        optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)

    observations, _ = env.reset(seed=seed)
    ended = np.zeros(NUM_ENVS, bool)
    for _ in range(UPDATES):
        steps = []
        for _ in range(NUM_STEPS):
            step = [~ended, observations, *play(observations)]
            observations, rewards, terminated, truncated, _ = env.step(step[2].numpy())
            ended = terminated | truncated
            steps.append([*step, rewards, ~terminated, ~ended])
        columns = [np.stack(column) for column in zip(*steps, strict=True)]
        valid, seen, actions, before, values, rewards, alive, unfinished = columns
        following = np.append(values[1:], [play(observations)[2]], axis=0)
        advantages = (rewards + GAMMA * alive * following - values).astype(np.float32)
        for t in reversed(range(NUM_STEPS - 1)):
            advantages[t] += GAMMA * GAE_LAMBDA * unfinished[t] * advantages[t + 1]
        scaled = (advantages - advantages[valid].mean()) / advantages[valid].std()
        # The step after an episode's end only resets its environment.
        batch = [part[valid] for part in (seen, actions, before, scaled, advantages + values)]
        for _ in range(EPOCHS):
            for chosen in np.array_split(np.random.permutation(valid.sum()), MINIBATCHES):
                learn(*(part[chosen] for part in batch))


@click.command()
@click.option("--models", default="models", type=click.Path(path_type=Path))
@click.option("--seed", default=0)
def main(models: Path, seed: int) -> None:
    """Train, and export to the next version of MODELS/cartpole-keras."""
    keras.utils.set_random_seed(seed)
    model = ActorCritic(num_actions=2, num_hidden_units=128)
    train(model, seed)
    environment = Environment("CartPole-v1")
    click.echo(export(models / "cartpole-keras", model, environment, seed=seed))


if __name__ == "__main__":
    main()
