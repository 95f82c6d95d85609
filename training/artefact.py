"""Read an exported version: its weights are loaded as data, into training's own network.

The version's own graph runs only on request (`run_graph`), so that whoever can write its files
cannot run code here.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import tensorflow as tf
from msgspec.structs import astuple

from training.config import Environment
from training.errors import TrainingError
from training.files import CARD, plain_path
from training.intervals import Bounds
from training.model import ActorCritic, Dense, Policy
from training.normalization import Normalization
from training.types import FloatArray, PolicyFunction

GOLDEN = "assets.extra/golden.json"


class ArtefactError(TrainingError):
    """A folder is not a version, or training has no network for its policy."""


class EnvironmentOptions(msgspec.Struct, frozen=True):
    """What the environment on a card is made with, besides its id."""

    kwargs: dict[str, Any] = {}
    max_episode_steps: int | None = None
    wrappers: tuple[str, ...] = ()


class Card(msgspec.Struct, frozen=True):
    """The fields of a policy card that are needed here."""

    environment: str
    environment_options: EnvironmentOptions = EnvironmentOptions()
    return_bounds: Bounds | None = None
    training: dict[str, Any] | None = None


class Loaded(NamedTuple):
    """What is needed to evaluate a version."""

    policy: PolicyFunction  # verified against the version's golden values
    environment: Environment
    return_bounds: Bounds | None  # of the environment's episodes, if the card has them
    training: dict[str, Any] | None  # how it was trained, if it was trained here
    observation_size: int
    num_actions: int


def load(model_dir: Path, *, run_graph: bool = False) -> Loaded:
    """Load a version to evaluate it, or to continue from it.

    Args:
        model_dir: folder of the version.
        run_graph: whether to run the version's own graph if training has no network for its
            policy, because that was learned elsewhere. A graph can do what any program can.

    Raises:
        ArtefactError: it cannot be read, differs from its golden values, or needs `run_graph`.
    """
    try:
        card = msgspec.json.decode((model_dir / CARD).read_bytes(), type=Card)
        golden = json.loads((model_dir / GOLDEN).read_text())
        policy: PolicyFunction
        if card.training is not None:
            policy = Policy(*_read_network(model_dir, card.training["config"]["activation"]))
        elif run_graph:
            policy = _graph(model_dir)
        else:
            raise ArtefactError(
                "its policy was learned elsewhere, so its graph has to be run, which can do what "
                "any program can: --run-graph does it"
            )
        observations = np.array(golden["observations"], np.float32)
        outputs = policy(observations)
        for name, computed in zip(("action_logits", "state_values"), outputs, strict=True):
            # `allclose` broadcasts: an empty array would match without any comparison.
            if np.shape(golden[name]) != np.shape(computed) or not np.allclose(
                computed, golden[name], golden["tolerance"], golden["tolerance"]
            ):
                raise ArtefactError(f"its weights do not give the {name} of {GOLDEN}")
        bounds = card.return_bounds
        if bounds is None and card.training is not None:  # where older versions have it
            bounds = msgspec.convert(card.training["config"].get("return_bounds"), Bounds | None)
        environment = Environment(card.environment, *astuple(card.environment_options))
        sizes = observations.shape[1], outputs[0].shape[1]
        return Loaded(policy, environment, bounds, card.training, *sizes)
    # The files may hold anything: any type, any nesting, any size.
    except (LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ArtefactError(str(error)) from error
    except tf.errors.OpError as error:
        raise ArtefactError(error.message) from error


def _read_network(
    model_dir: Path, activation: Any
) -> tuple[ActorCritic, Any, Normalization | None]:
    with plain_path(model_dir) as path:
        checkpoint: Any = tf.train.load_checkpoint(str(path / "variables" / "variables"))
        suffix = "/.ATTRIBUTES/VARIABLE_VALUE"
        keys = set(checkpoint.get_variable_to_shape_map())

        def read(kind: type[Any], name: str) -> Any:
            return kind(*(checkpoint.get_tensor(f"{name}/{part}{suffix}") for part in kind._fields))

        def trunk(name: str) -> tuple[Dense, ...]:
            if f"{name}/kernel{suffix}" in keys:  # older versions have a single hidden layer
                return (read(Dense, name),)
            numbers = {int(found[1]) for key in keys if (found := re.match(rf"{name}/(\d+)/", key))}
            return tuple(read(Dense, f"{name}/{number}") for number in sorted(numbers))

        weights = ActorCritic(
            trunk("weights/hidden"),
            trunk("weights/critic_hidden"),
            read(Dense, "weights/actor"),
            read(Dense, "weights/critic"),
        )
        if f"normalization/mean{suffix}" not in keys:
            return weights, activation, None
        return weights, activation, read(Normalization, "normalization")


def _graph(model_dir: Path) -> PolicyFunction:
    with plain_path(model_dir) as path:
        loaded = tf.saved_model.load(path)
    signature = loaded.signatures["serving_default"]

    def policy(observations: FloatArray) -> tuple[FloatArray, FloatArray]:
        outputs = signature(observations=tf.constant(observations))
        return outputs["action_logits"].numpy(), outputs["state_values"].numpy()

    policy.loaded = loaded  # type: ignore[attr-defined]  # keeps the variables alive
    return policy
