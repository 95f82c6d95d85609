"""Export a policy that was learned elsewhere: any TensorFlow function that computes one."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from training.card import Seen, policy_card
from training.config import Environment
from training.evaluation import evaluate
from training.intervals import Bounds
from training.names import describe_with_names
from training.robustness import robustness
from training.savedmodel import ROW_BLOCK, Network
from training.selection import reaches
from training.types import FloatArray
from training.writing import ExportError, golden_values, write_version


def export(
    base: Path,
    policy: Callable[[Any], tuple[Any, Any]],
    environment: Environment,
    *,
    episodes: int = 100,
    seed: int = 0,
    reward_threshold: float | None = None,
    return_bounds: Bounds | None = None,
    observation_names: Sequence[str] = (),
    action_names: Sequence[str] = (),
    allow_unsolved: bool = False,
) -> Path:
    """Evaluate a policy like those that are trained here, and write its next version.

    Args:
        base: folder of the versions, such as `models/cartpole`, made if missing.
        policy: a function that TensorFlow can trace, from float32 observations `[B, O]` to action
            logits `[B, A]` and state values `[B]`; its variables are stored. It takes the flat
            vector that `gymnasium.spaces.flatten` makes of an observation.
        environment: what it acts in.
        episodes: how many to play greedily, and as many sampled.
        seed: of the episodes.
        reward_threshold: mean return from which it is solved, if not the environment's own.
        return_bounds: the lowest and the highest possible return, where they are known.
        observation_names: `[O]`, if not those of the environment's space.
        action_names: `[A]`.
        allow_unsolved: write it even if it is not solved; the service refuses it.

    Returns:
        The version's folder, `base/<number>`.

    Raises:
        ConfigError: there are more or fewer names than numbers or actions.
        ExportError: it is not solved, its outputs have other shapes or are not finite float32
            numbers, the threshold or the bounds are invalid, or the written version computes
            something else.
        NotFiniteError: an observation or a reward is NaN or infinite.
        OSError: `base` cannot be written.
        ReturnBoundsError: a return is outside `return_bounds`.
        UnsupportedEnvironmentError: see `training.envs`.
    """
    described = describe_with_names(environment, observation_names, action_names)
    threshold = described.reward_threshold if reward_threshold is None else reward_threshold
    if threshold is not None:
        (threshold,) = _finite("reward_threshold", threshold)
    if return_bounds is not None:
        match _finite("return_bounds", *return_bounds):
            case (low, high) if low < high:
                return_bounds = low, high
            case _:
                raise ExportError("return_bounds must be two numbers, the smaller one first")
    watched = _Watched(policy, len(described.observation_names), len(described.action_names))
    rng = np.random.default_rng(seed)
    greedy, sampled = (
        evaluate(
            watched,
            environment,
            episodes=episodes,
            deterministic=deterministic,
            rng=rng,
            return_bounds=return_bounds,
            with_histograms=not deterministic,
        )
        for deterministic in (True, False)
    )
    solved = reaches(threshold, greedy.mean, sampled.mean)
    if not solved and not allow_unsolved:
        raise ExportError(
            f"it is not solved: greedy {greedy.mean:g}, sampled {sampled.mean:g}, {threshold:g} "
            "is the reward threshold"
        )
    seen = Seen(watched.low, watched.high)
    golden = golden_values(watched, watched.last)
    card = policy_card(
        environment,
        described,
        seen,
        reward_threshold=threshold,
        return_bounds=return_bounds,
        solved=solved,
        evaluation={"greedy": greedy, "sampled": sampled},
        robustness=robustness(watched, environment),
        training=None,
    )
    return write_version(base, watched.network, card, golden)


def _finite(name: str, *numbers: Any) -> tuple[float, ...]:
    """Convert the numbers of any library to Python's, which JSON can hold."""
    try:
        converted = tuple(map(float, numbers))
    except (OverflowError, TypeError, ValueError) as error:
        raise ExportError(f"{name}: {error}") from error
    if not all(map(math.isfinite, converted)):
        raise ExportError(f"{name} has a number that is not finite: {converted}")
    return converted


class _Watched:
    """Calls a TensorFlow policy on NumPy arrays, and records which observations it gets.

    Attributes:
        network: of the policy.
        low: `[O]`, smallest of each number of the observations so far.
        high: `[O]`, largest.
        last: `[at most ROW_BLOCK, O]`, the first rows of the last observations.
    """

    def __init__(
        self, policy: Callable[[Any], tuple[Any, Any]], observation_size: int, num_actions: int
    ) -> None:
        rows = tf.TensorSpec([None, observation_size], tf.float32, name="observations")
        traced = tf.function(policy, input_signature=[rows]).get_concrete_function()
        self.network = Network(traced, {"captured": list(traced.variables)}, observation_size)
        self._num_actions = num_actions
        self.low = np.full(observation_size, np.inf, np.float32)
        self.high = np.full(observation_size, -np.inf, np.float32)
        self.last = np.empty((0, observation_size), np.float32)

    def __call__(self, observations: FloatArray) -> tuple[FloatArray, FloatArray]:
        self.low = np.minimum(self.low, observations.min(axis=0))
        self.high = np.maximum(self.high, observations.max(axis=0))
        self.last = observations[:ROW_BLOCK].copy()
        logits, values = (
            output.numpy() for output in self.network.forward(tf.constant(observations))
        )
        wanted = (len(observations), self._num_actions), (len(observations),)
        if (logits.shape, values.shape) != wanted:
            raise ExportError(
                f"logits and values have the shapes {logits.shape} and {values.shape}, "
                f"{wanted[0]} and {wanted[1]} are needed"
            )
        for name, output in (("logits", logits), ("values", values)):
            if output.dtype != np.float32 or not np.isfinite(output).all():
                raise ExportError(f"the {name} are not all finite numbers of float32")
        return logits, values
