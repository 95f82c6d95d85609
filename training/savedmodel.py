"""The SavedModel of a policy: its two signatures around the network's forward pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import tensorflow as tf

from training.files import plain_path
from training.model import Policy, activation_function

# Matrix kernels choose their code path by the number of rows, and vectorised functions treat
# the remainder differently. Padded to whole blocks, every row takes the same path, so that its
# outputs do not depend on the rest of the batch. Measured with oneDNN on.
ROW_BLOCK = 16


class Network(NamedTuple):
    """What a SavedModel is made of."""

    # float32 observations [B, O] to action logits [B, A] and state values [B], in TensorFlow
    forward: Callable[[Any], tuple[Any, Any]]
    variables: dict[str, Any]  # all that `forward` uses, nested as they are to be stored
    observation_size: int


def network_of(policy: Policy) -> Network:
    """The network of a policy that was trained here."""
    weights = tf.nest.map_structure(tf.Variable, policy.weights)
    activation = activation_function(policy.activation, tf)
    variables = {"weights": weights}
    if policy.normalization is None:
        return Network(lambda rows: weights(rows, activation), variables, policy.observation_size)
    normalization = tf.nest.map_structure(tf.Variable, policy.normalization)
    return Network(
        lambda rows: weights(normalization(rows, tf), activation),
        variables | {"normalization": normalization},
        policy.observation_size,
    )


def save(folder: Path, network: Network) -> None:
    """Write a SavedModel with the signatures `serving_default` and `act`."""

    def decide(observations: Any, uniforms: Any, deterministic: Any) -> dict[str, Any]:
        """All outputs from one forward pass; uniforms are in [0, 1)."""
        batch = tf.shape(observations)[0]
        # Not `-batch % ROW_BLOCK`, which tf2onnx converts to the remainder of truncated division.
        padded = tf.pad(observations, [[0, (ROW_BLOCK - batch % ROW_BLOCK) % ROW_BLOCK], [0, 0]])
        logits, values = network.forward(padded)
        # Written out: with oneDNN the softmax operation takes 50 us, as long as all the rest.
        shifted = logits - tf.reduce_max(logits, axis=1, keepdims=True)
        exponentials = tf.exp(shifted)
        total = tf.reduce_sum(exponentials, axis=1, keepdims=True)
        log_probabilities = (shifted - tf.math.log(total))[:batch]
        probabilities = exponentials / total
        cumulative = tf.cumsum(probabilities, axis=1)[:batch, :-1]
        logits, values, probabilities = logits[:batch], values[:batch], probabilities[:batch]
        greedy = tf.argmax(logits, axis=1)
        exceeded = tf.cast(cumulative <= uniforms[:, tf.newaxis], tf.int64)
        actions = tf.where(deterministic, greedy, tf.reduce_sum(exceeded, axis=1))
        return {
            "action_logits": logits,
            "action_probabilities": probabilities,
            "actions": actions,
            "greedy_actions": greedy,
            "log_probabilities": tf.gather(log_probabilities, actions, batch_dims=1),
            "state_values": values,
        }

    def decide_at_random(observations: Any) -> dict[str, Any]:
        batch = tf.shape(observations)[:1]
        return decide(observations, tf.random.uniform(batch), tf.zeros(batch, tf.bool))

    rows = tf.TensorSpec([None, network.observation_size], tf.float32, name="observations")
    uniforms = tf.TensorSpec([None], tf.float32, name="uniforms")
    deterministic = tf.TensorSpec([None], tf.bool, name="deterministic")
    module = tf.Module()
    for name, variables in network.variables.items():
        setattr(module, name, variables)
    signatures = {
        "serving_default": tf.function(decide_at_random, input_signature=[rows], autograph=False),
        "act": tf.function(
            decide, input_signature=[rows, uniforms, deterministic], autograph=False
        ),
    }
    with plain_path(folder) as path:
        tf.saved_model.save(module, path, signatures=signatures)
