"""Reading an exported version: its weights as data, for the network that training has.

Nothing of the version's graph runs: who can write its files cannot run code here.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training.files import CARD, plain_path
from training.intervals import Bounds
from training.model import ActorCritic, Dense, Policy

GOLDEN = "assets.extra/golden.json"


class ArtefactError(Exception):
    """A folder is no version, or not one of a policy that training has a network for."""


class Loaded(NamedTuple):
    """What a version is evaluated by."""

    policy: Policy  # computes the version's golden values
    env_id: str
    return_bounds: Bounds | None  # of the environment's episodes, if the card has them


def load(model_dir: Path) -> Loaded:
    """Load a version to evaluate it.

    Raises:
        ArtefactError: it cannot be read, or the policy computes something else.
    """
    try:
        card = json.loads((model_dir / CARD).read_text())
        golden = json.loads((model_dir / GOLDEN).read_text())
        policy = Policy(_read_weights(model_dir), card["training"]["config"]["activation"])
        outputs = policy(np.array(golden["observations"], np.float32))
        for name, computed in zip(("action_logits", "state_values"), outputs, strict=True):
            if not np.allclose(computed, golden[name], golden["tolerance"], golden["tolerance"]):
                raise ArtefactError(f"its weights do not give the {name} of {GOLDEN}")
        bounds = card["training"]["config"].get("return_bounds")
        if bounds is not None:
            low, high = map(float, bounds)
            bounds = low, high
        return Loaded(policy, str(card["environment"]), bounds)
    # What is in the files may be anything, of any type, however deep and however large.
    except (LookupError, MemoryError, OSError, RecursionError, TypeError, ValueError) as error:
        raise ArtefactError(str(error)) from error
    except tf.errors.OpError as error:
        raise ArtefactError(error.message) from error


def _read_weights(model_dir: Path) -> ActorCritic:
    with plain_path(model_dir) as path:
        checkpoint: Any = tf.train.load_checkpoint(str(path / "variables" / "variables"))

        def dense(layer: str) -> Dense:
            keys = [f"weights/{layer}/{part}/.ATTRIBUTES/VARIABLE_VALUE" for part in Dense._fields]
            return Dense(*map(checkpoint.get_tensor, keys))

        return ActorCritic(*map(dense, ActorCritic._fields))
