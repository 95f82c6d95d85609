"""The losses, and the one compiled function that updates the weights.

PPO, A2C and the notebook's method differ only in the config: A2C is PPO with one pass over
one minibatch (Huang et al. 2022, "A2C is a special case of PPO").
"""

import functools
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.config import TrainingConfig
from training.model import ActorCritic, Dense, activation_function
from training.types import FloatArray


class Batch(NamedTuple):
    """Samples to learn from, `[B, ...]`, as NumPy arrays or tensors."""

    observations: Any  # float32 [B, O]
    actions: Any  # int64 [B]
    log_probs: Any  # float32 [B], of the actions when they were taken
    advantages: Any  # float32 [B]
    returns: Any  # float32 [B], what the critic learns
    valid: Any  # float32 [B], 1 where the sample counts and 0 where not


class Losses(NamedTuple):
    """Losses and diagnostics of a minibatch: scalars.

    `config.reduction` applies to the two losses; the rest are means over the valid samples.
    """

    policy_loss: Any
    value_loss: Any
    entropy: Any  # nats
    approx_kl: Any  # nats (Schulman 2020, http://joschu.net/blog/kl-approx.html)
    clip_fraction: Any  # share of ratios outside the clipping range, 0 without one


def losses(config: TrainingConfig, logits: Any, values: Any, batch: Batch) -> Losses:
    """The losses of a minibatch.

    Args:
        config: which losses, and how they are reduced.
        logits: `[A, B]` of the current weights.
        values: `[B]` of the current weights.
        batch: tensors.
    """
    mean_weights = batch.valid / tf.maximum(tf.reduce_sum(batch.valid), 1.0)
    weights = mean_weights if config.reduction == "mean" else batch.valid
    shifted = logits - tf.reduce_max(logits, axis=0)
    all_log_probs = shifted - tf.math.log(tf.reduce_sum(tf.exp(shifted), axis=0))
    # Not `tf.gather`: its gradient is a scatter, which is slower for a few actions.
    taken = tf.one_hot(batch.actions, logits.shape[0], axis=0)
    log_probs = tf.reduce_sum(taken * all_log_probs, axis=0)
    log_ratio = log_probs - batch.log_probs
    ratio = tf.exp(log_ratio)
    advantages = batch.advantages
    if config.differentiate_advantages:
        advantages = batch.returns - values

    if config.clip_coef is None:
        surrogate = log_probs * advantages
        clipped = tf.zeros_like(ratio)
    else:
        low, high = 1.0 - config.clip_coef, 1.0 + config.clip_coef
        surrogate = tf.minimum(ratio * advantages, tf.clip_by_value(ratio, low, high) * advantages)
        clipped = tf.cast((ratio < low) | (ratio > high), tf.float32)

    error = tf.abs(values - batch.returns)
    value_losses = 0.5 * tf.square(error)
    if config.value_loss == "huber":
        value_losses = tf.where(error <= 1.0, value_losses, error - 0.5)

    entropy = -tf.reduce_sum(tf.exp(all_log_probs) * all_log_probs, axis=0)
    return Losses(
        policy_loss=-tf.reduce_sum(weights * surrogate),
        value_loss=tf.reduce_sum(weights * value_losses),
        entropy=tf.reduce_sum(mean_weights * entropy),
        approx_kl=tf.reduce_sum(mean_weights * (ratio - 1.0 - log_ratio)),
        clip_fraction=tf.reduce_sum(mean_weights * clipped),
    )


def learning_rate(config: TrainingConfig, env_steps: int) -> float:
    """The learning rate of an update after `env_steps` environment steps."""
    if not config.anneal_learning_rate:
        return config.learning_rate
    return config.learning_rate * max(0.0, 1 - env_steps / config.max_env_steps)


class LearnerState(NamedTuple):
    """All that an update changes, as TensorFlow variables.

    All weights are one vector, and so are their moments: in a small network, one operation per
    array would cost more than the arithmetic, and take longer to compile.
    """

    weights: Any  # float32 [P], see `flatten`
    first_moments: Any  # float32 [P], of Adam
    second_moments: Any  # float32 [P]
    steps: Any  # float32 scalar, those that Adam has taken


def flatten(weights: ActorCritic) -> FloatArray:
    """All weights as one vector `[P]`."""
    vector: FloatArray = np.concatenate([np.ravel(array) for array in tf.nest.flatten(weights)])
    return vector


def unflatten(vector: Any, shapes: ActorCritic, library: ModuleType) -> ActorCritic:
    """Split a vector `[P]` into weights: the inverse of `flatten`.

    `shapes` has a `tf.TensorShape` for each array; `library` is NumPy or TensorFlow.
    """
    arrays, start = [], 0
    for shape in tf.nest.flatten(shapes):
        end = start + shape.num_elements()
        arrays.append(library.reshape(vector[start:end], shape.as_list()))
        start = end
    weights: ActorCritic = tf.nest.pack_sequence_as(shapes, arrays)
    return weights


class Learner:
    """The weights, their Adam state, and the update step.

    Attributes:
        config: how it learns.
        state: all that an update changes.
    """

    def __init__(self, config: TrainingConfig, weights: ActorCritic) -> None:
        """Trace and compile the update step, unless one with this config and these shapes exists.

        Args:
            config: how to learn.
            weights: NumPy arrays to begin with.
        """
        self.config = config
        self._shapes = tf.nest.map_structure(lambda array: tf.TensorShape(array.shape), weights)
        vector = flatten(weights)
        self.state = LearnerState(
            weights=tf.Variable(vector),
            first_moments=tf.Variable(np.zeros_like(vector)),
            second_moments=tf.Variable(np.zeros_like(vector)),
            steps=tf.Variable(np.float32(0.0)),
        )
        size = config.rollout_size
        dummy_batch = Batch(
            observations=np.zeros((size, len(weights.hidden[0].kernel)), np.float32),
            actions=np.zeros(size, np.int64),
            log_probs=np.zeros(size, np.float32),
            advantages=np.zeros(size, np.float32),
            returns=np.zeros(size, np.float32),
            valid=np.zeros(size, np.float32),
        )
        rng = np.random.default_rng(0)
        # One concrete function: looking up the trace would take half the time of a small update.
        self._update = _update_function(config, self._shapes).get_concrete_function(
            self.state, dummy_batch, tf.constant(self._minibatches(rng)), tf.constant(0.0)
        )
        # The first call compiles. Without a valid sample its losses and gradients are zero.
        self.update(dummy_batch, 0.0, rng)
        self.state.steps.assign(0.0)

    def update(self, batch: Batch, learning_rate: float, rng: np.random.Generator) -> Losses:
        """Update the weights in all passes (epochs) over a rollout.

        Args:
            batch: NumPy arrays, as many samples as `config.rollout_size`.
            learning_rate: of Adam.
            rng: shuffles the samples in each pass.

        Returns:
            The mean over the minibatches, as floats.
        """
        measured = self._update(
            self.state,
            batch,
            tf.constant(self._minibatches(rng)),
            tf.constant(learning_rate, tf.float32),
        )
        return Losses(*np.mean(measured.numpy(), axis=0).tolist())

    def numpy_weights(self) -> ActorCritic:
        """A copy of the weights as they are now."""
        return unflatten(self.state.weights.numpy(), self._shapes, np)

    def _minibatches(self, rng: np.random.Generator) -> npt.NDArray[np.int32]:
        """Indices of the samples of each minibatch of each pass, `[M, size]`."""
        config = self.config
        order = np.tile(np.arange(config.rollout_size, dtype=np.int32), (config.num_epochs, 1))
        if config.num_minibatches > 1:
            order = rng.permuted(order, axis=1)
        used = order[:, : config.num_minibatches * config.minibatch_size]
        return used.reshape(-1, config.minibatch_size)


@functools.cache
def _update_function(config: TrainingConfig, shapes: ActorCritic) -> Any:
    """The update step; one for all learners of a config, so that it is compiled once."""
    # Without autograph: reading the source would take longer than tracing it.
    return tf.function(
        functools.partial(_update_on_minibatches, config, shapes), jit_compile=True, autograph=False
    )


def _update_on_minibatches(
    config: TrainingConfig,
    shapes: ActorCritic,
    state: LearnerState,
    batch: Batch,
    minibatches: Any,
    learning_rate: Any,
) -> Any:
    """Take one Adam step for each row of `minibatches` `[M, size]`; losses `[M, 5]`."""
    count = minibatches.shape[0]
    shuffled = Batch(*(tf.gather(samples, minibatches) for samples in batch))

    def learn_from_one(i: Any, measured: Any) -> tuple[Any, Any]:
        minibatch = Batch(*(samples[i] for samples in shuffled))
        return i + 1, measured.write(i, _step(config, shapes, state, minibatch, learning_rate))

    measured = tf.TensorArray(tf.float32, size=count, element_shape=[5])
    _, measured = tf.while_loop(lambda i, _: i < count, learn_from_one, (0, measured))
    return measured.stack()


def _step(
    config: TrainingConfig,
    shapes: ActorCritic,
    state: LearnerState,
    minibatch: Batch,
    learning_rate: Any,
) -> Any:
    with tf.GradientTape() as tape:
        weights = unflatten(state.weights, shapes, tf)
        logits, values = weights.forward(
            tf.transpose(minibatch.observations),
            activation_function(config.activation, tf),
            _dense_of_columns,
        )
        minibatch_losses = losses(config, logits, values[0], minibatch)
        loss = (
            minibatch_losses.policy_loss
            + config.vf_coef * minibatch_losses.value_loss
            - config.ent_coef * minibatch_losses.entropy
        )
    gradient = tape.gradient(loss, state.weights)
    if config.max_grad_norm is not None:
        norm = tf.sqrt(tf.reduce_sum(tf.square(gradient)))
        gradient *= config.max_grad_norm / tf.maximum(norm, config.max_grad_norm)
    _adam(state, gradient, learning_rate, config.adam_epsilon)
    return tf.stack(minibatch_losses)


def _dense_of_columns(layer: Dense, inputs: Any) -> Any:
    """Map `[inputs, B]` to `[outputs, B]`.

    XLA multiplies small matrices faster when the longest side, the samples, is contiguous. With the
    bias as the kernel's last row its gradient is part of a product, not a slow sum over samples.
    """
    kernel = tf.concat([layer.kernel, layer.bias[tf.newaxis]], axis=0)
    with_ones = tf.concat([inputs, tf.ones_like(inputs[:1])], axis=0)
    return tf.matmul(kernel, with_ones, transpose_a=True)


def _adam(state: LearnerState, gradient: Any, learning_rate: Any, epsilon: float) -> None:
    """Kingma & Ba 2015, algorithm 1."""
    beta_1, beta_2 = 0.9, 0.999
    _, first, second, steps = state
    steps.assign_add(1.0)
    first.assign(beta_1 * first + (1.0 - beta_1) * gradient)
    second.assign(beta_2 * second + (1.0 - beta_2) * tf.square(gradient))
    mean = first / (1.0 - tf.pow(beta_1, steps))
    deviation = tf.sqrt(second / (1.0 - tf.pow(beta_2, steps)))
    state.weights.assign_sub(learning_rate * mean / (deviation + epsilon))
