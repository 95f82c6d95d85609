"""A loaded policy. The only file of the service that imports TensorFlow."""

import threading
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from serving.card import Card, Golden

FloatArray = npt.NDArray[np.float32]

SIGNATURE = "act"


class PolicyLoadError(Exception):
    """A version's folder holds no policy that can be served; says which and why."""


class Decision(NamedTuple):
    """What the policy says about `B` observations: the outputs of its signature."""

    action_logits: FloatArray  # [B, A]
    action_probabilities: FloatArray  # [B, A]
    actions: npt.NDArray[np.int64]  # [B], the most probable where asked for, else sampled
    greedy_actions: npt.NDArray[np.int64]  # [B], the most probable
    log_probabilities: FloatArray  # [B], of `actions`
    state_values: FloatArray  # [B]


class Policy:
    """One version, loaded, checked and warmed up.

    Attributes:
        name, version: of the folder it was loaded from.
        card: the typed part of the policy card.
        card_json: the whole policy card as it stands in the file.
    """

    def __init__(self, model_dir: Path) -> None:
        """Load `<name>/<version>`.

        Raises:
            PolicyLoadError: it cannot be loaded, or does not compute its golden values.
        """
        self.name, self.version = model_dir.parent.name, int(model_dir.name)
        self._lock = threading.Lock()
        try:
            extra = model_dir / "assets.extra"
            self.card_json = (extra / "policy.json").read_bytes()
            self.card = msgspec.json.decode(self.card_json, type=Card)
            golden = msgspec.json.decode((extra / "golden.json").read_bytes(), type=Golden)
            self._model = tf.saved_model.load(model_dir)  # the function does not keep it alive
            self._function = self._model.signatures[SIGNATURE]
            self._verify(golden)
        # Whatever is wrong with a folder, the service stays up and says so.
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise PolicyLoadError(f"{model_dir}: {reason}") from error

    def act(
        self,
        observations: FloatArray,
        uniforms: FloatArray,
        deterministic: npt.NDArray[np.bool_],
    ) -> Decision:
        """Decide about a batch.

        Args:
            observations: `[B, O]`.
            uniforms: `[B]` in [0, 1), the randomness of each row.
            deterministic: `[B]`, true where the most probable action is asked for.
        """
        # Calls from several threads at once are slower than one after the other.
        with self._lock:
            outputs = self._function(
                observations=tf.constant(observations),
                uniforms=tf.constant(uniforms),
                deterministic=tf.constant(deterministic),
            )
        return Decision(**{name: outputs[name].numpy() for name in Decision._fields})

    def identity(self) -> dict[str, str | int]:
        """The name and version, as every answer gives them."""
        return {"name": self.name, "version": self.version}

    def _verify(self, golden: Golden) -> None:
        observations = np.array(golden.observations, np.float32)
        decision = self.act(
            observations,
            np.zeros(len(observations), np.float32),
            np.ones(len(observations), np.bool_),
        )
        for name in ("action_logits", "state_values"):
            computed, expected = getattr(decision, name), getattr(golden, name)
            if not np.allclose(computed, expected, rtol=golden.tolerance, atol=golden.tolerance):
                raise ValueError(f"its {name} are not those of assets.extra/golden.json")
