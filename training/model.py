"""The actor-critic: hidden layers, shared or not, an actor head and a critic head.

The network is written once. Collecting and evaluating run it on NumPy arrays, where a call costs
microseconds, and the exported model runs the same lines on TensorFlow variables; the learner
passes its own way to apply a layer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from training.config import Activation, TrainingConfig
from training.normalization import Normalization
from training.types import FloatArray, IntArray


class Dense(NamedTuple):
    """Weights of a fully connected layer: NumPy arrays or TensorFlow variables."""

    kernel: Any  # [inputs, outputs]
    bias: Any  # [outputs]

    def __call__(self, inputs: Any) -> Any:
        """Map `[..., inputs]` to `[..., outputs]`."""
        return inputs @ self.kernel + self.bias


class ActorCritic(NamedTuple):
    """Weights of the whole network: NumPy arrays or TensorFlow variables, float32."""

    hidden: tuple[Dense, ...]
    critic_hidden: tuple[Dense, ...]  # empty if the critic shares the actor's
    actor: Dense
    critic: Dense

    def __call__(self, observations: Any, activation: Callable[[Any], Any]) -> tuple[Any, Any]:
        """Map observations `[B, O]` to action logits `[B, A]` and state values `[B]`."""
        logits, values = self.forward(observations, activation, Dense.__call__)
        return logits, values[..., 0]

    def forward(
        self,
        observations: Any,
        activation: Callable[[Any], Any],
        dense: Callable[[Dense, Any], Any],
    ) -> tuple[Any, Any]:
        """The outputs of the actor, `[B, A]`, and of the critic, `[B, 1]`, from `[B, O]`.

        All three are transposed if `dense`, which applies a layer, takes samples in columns.
        """
        features = critic_features = observations
        for layer in self.hidden:
            features = activation(dense(layer, features))
        for layer in self.critic_hidden:
            critic_features = activation(dense(layer, critic_features))
        critic_inputs = critic_features if self.critic_hidden else features
        return dense(self.actor, features), dense(self.critic, critic_inputs)


def initialize(
    rng: np.random.Generator, observation_size: int, num_actions: int, config: TrainingConfig
) -> ActorCritic:
    """Draw NumPy weights; all biases are zero.

    "orthogonal" kernels (Andrychowicz et al. 2021) start the actor 100 times smaller than the
    critic, so that the first policy is close to uniform. "glorot_uniform" (Glorot & Bengio
    2010) is Keras's default, which the notebook used.
    """

    def dense(inputs: int, outputs: int, gain: float) -> Dense:
        if config.initializer == "glorot_uniform":
            limit = np.sqrt(6.0 / (inputs + outputs))
            drawn = rng.uniform(-limit, limit, (inputs, outputs)).astype(np.float32)
            return Dense(drawn, np.zeros(outputs, np.float32))
        normal = rng.standard_normal((max(inputs, outputs), min(inputs, outputs)))
        orthogonal, triangular = np.linalg.qr(normal)
        orthogonal *= np.sign(np.diag(triangular))
        kernel = orthogonal if inputs >= outputs else orthogonal.T
        return Dense((gain * kernel).astype(np.float32), np.zeros(outputs, np.float32))

    def trunk() -> tuple[Dense, ...]:
        sizes = pairwise((observation_size, *config.hidden_units))
        return tuple(dense(inputs, outputs, np.sqrt(2.0)) for inputs, outputs in sizes)

    return ActorCritic(
        hidden=trunk(),
        critic_hidden=trunk() if config.trunk == "separate" else (),
        actor=dense(config.hidden_units[-1], num_actions, 0.01),
        critic=dense(config.hidden_units[-1], 1, 1.0),
    )


def activation_function(name: Activation, library: ModuleType) -> Callable[[Any], Any]:
    """The activation of that name in `library`, which is NumPy or TensorFlow."""
    if name == "relu":
        return lambda features: library.maximum(features, 0.0)
    return library.tanh if name == "tanh" else lambda features: features


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy in NumPy, with a copy of the weights from when it was made."""

    weights: ActorCritic
    activation: Activation
    normalization: Normalization | None = None

    def __call__(self, observations: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Map observations `[B, O]` to action logits `[B, A]` and state values `[B]`."""
        activation = activation_function(self.activation, np)
        logits, values = self.weights(self.normalize(observations), activation)
        return logits, values

    def normalize(self, observations: FloatArray) -> FloatArray:
        """Normalise observations `[B, O]`, if the policy was trained on normalised ones."""
        if self.normalization is None:
            return observations
        normalized: FloatArray = self.normalization(observations, np)
        return normalized

    @property
    def observation_size(self) -> int:
        """How many numbers an observation has."""
        return int(self.weights.hidden[0].kernel.shape[0])

    @property
    def num_actions(self) -> int:
        """How many actions there are."""
        return int(self.weights.actor.kernel.shape[1])


def log_softmax(logits: FloatArray) -> FloatArray:
    """Log-probabilities of all actions: `[B, A]` to `[B, A]`."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs: FloatArray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probs


def sample_actions(logits: FloatArray, uniforms: npt.NDArray[np.floating]) -> IntArray:
    """Sample by inverting the cumulative distribution of each row.

    Args:
        logits: `[B, A]`.
        uniforms: `[B]`, uniform on [0, 1); the randomness of each row.

    Returns:
        Actions `[B]`.
    """
    cumulative = np.exp(logits - logits.max(axis=-1, keepdims=True)).cumsum(axis=-1)
    actions: IntArray = (cumulative[:, :-1] <= uniforms[:, None] * cumulative[:, -1:]).sum(axis=-1)
    return actions
