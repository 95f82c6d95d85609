"""A loaded policy: a SavedModel, checked against its card and its golden values."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped] # no stubs

from serving.policy import tensorflow_adapter
from serving.policy.artefact import Artefact, ArtefactError, Golden
from serving.policy.observations import FloatArray, Ranges
from serving.policy.outputs import PolicyOutputs

SIGNATURE = "act"
INPUTS = ("observations", "uniforms", "deterministic")


class Policy:
    """One version, loaded, checked and warmed up.

    Attributes:
        name, version: of the folder it was loaded from.
        card: the typed part of the policy card.
        card_json: the whole policy card as it stands in the file.
        ranges: what training saw of the observations.
        pictures: of the run that made it, by name.
        identity_json: `identity` as JSON.
        signatures: all of the SavedModel, as protobuf writes a `SignatureDef` in JSON.
    """

    def __init__(self, model_dir: Path, artefact: Artefact) -> None:
        """Load `<name>/<version>`.

        Args:
            model_dir: the version's folder.
            artefact: what `serving.artefact.read` found there.

        Raises:
            ArtefactError: it cannot be loaded, its signatures are not those of the design, or
                it does not compute its golden values.
        """
        self.name, self.version = model_dir.parent.name, int(model_dir.name)
        self.card, self.card_json, golden, self.pictures = artefact
        known = self.card.observations
        self.ranges = Ranges(
            known.names,
            np.array(known.seen_low, np.float32),
            np.array(known.seen_high, np.float32),
        )
        self.identity_json = msgspec.json.encode(self.identity())
        self._lock = threading.Lock()
        try:
            # A session calls a graph in a third of the time that eager TensorFlow takes.
            session = tf.compat.v1.Session(graph=tf.Graph())
            graph = tensorflow_adapter.load(session, str(model_dir), tf.saved_model.SERVING)
        # TensorFlow raises whatever it likes; the service stays up and says what it was.
        except Exception as error:
            raise ArtefactError(f"TensorFlow cannot load it: {_first_line(error)}") from error
        _require_signatures(
            graph.signature_def,
            observation_size=len(self.card.observations.names),
            num_actions=len(self.card.actions.names),
        )
        self.signatures = _as_json(graph.signature_def)
        signature = graph.signature_def[SIGNATURE]
        self._call = tensorflow_adapter.make_callable(
            session,
            feed=[signature.inputs[name].name for name in INPUTS],
            fetch=[signature.outputs[name].name for name in PolicyOutputs._fields],
        )
        self._require_golden(golden)

    def act(
        self,
        observations: FloatArray,
        uniforms: FloatArray,
        deterministic: npt.NDArray[np.bool_],
    ) -> PolicyOutputs:
        """Decide about a batch.

        Args:
            observations: `[B, O]`.
            uniforms: `[B]` in [0, 1), the randomness of each row.
            deterministic: `[B]`, true where the most probable action is asked for.
        """
        # Calls from several threads at once are slower than one after the other.
        with self._lock:
            outputs = self._call(observations, uniforms, deterministic)
        return PolicyOutputs(*outputs)

    def identity(self) -> dict[str, str | int]:
        """The name and version, as every answer gives them."""
        return {"name": self.name, "version": self.version}

    def _require_golden(self, golden: Golden) -> None:
        """Recompute the golden values, which warms the function up besides.

        Raises:
            ArtefactError: they differ by more than their tolerance.
        """
        try:
            observations = np.array(golden.observations, np.float32)
            rows = len(observations)
            decision = self.act(observations, np.zeros(rows, np.float32), np.ones(rows, np.bool_))
            close = {
                name: np.allclose(
                    getattr(decision, name),
                    getattr(golden, name),
                    rtol=golden.tolerance,
                    atol=golden.tolerance,
                )
                for name in ("action_logits", "state_values")
            }
        except (ValueError, tf.errors.OpError) as error:
            raise ArtefactError(f"its golden values cannot be computed: {error}") from error
        for name, is_close in close.items():
            if not is_close:
                raise ArtefactError(f"its {name} are not those of assets.extra/golden.json")


def _as_json(signatures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: MessageToDict(
            signature,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        for name, signature in sorted(signatures.items())
    }


def _require_signatures(
    signatures: Mapping[str, Any], observation_size: int, num_actions: int
) -> None:
    """Hold the two signatures to names, types and shapes.

    Raises:
        ArtefactError: one is missing or other than in the design.
    """
    rows = ("float32", [None, observation_size])
    logits = ("float32", [None, num_actions])
    outputs = {
        "action_logits": logits,
        "action_probabilities": logits,
        "actions": ("int64", [None]),
        "greedy_actions": ("int64", [None]),
        "log_probabilities": ("float32", [None]),
        "state_values": ("float32", [None]),
    }
    inputs = {
        "serving_default": {"observations": rows},
        SIGNATURE: {
            "observations": rows,
            "uniforms": ("float32", [None]),
            "deterministic": ("bool", [None]),
        },
    }
    for name, expected in inputs.items():
        if name not in signatures:
            raise ArtefactError(f"it has no signature {name!r}")
        found = signatures[name]
        for what, tensors, wanted in [
            ("inputs", found.inputs, expected),
            ("outputs", found.outputs, outputs),
        ]:
            seen = {key: _type_and_shape(tensor) for key, tensor in tensors.items()}
            if seen != wanted:
                raise ArtefactError(f"signature {name!r} has the {what} {seen}, expected {wanted}")


def _type_and_shape(tensor: Any) -> tuple[str, list[int | None] | None]:
    """Of a `TensorInfo`; None is a size, or a whole shape, that is open."""
    shape = tf.TensorShape(tensor.tensor_shape)
    return tf.as_dtype(tensor.dtype).name, None if shape.rank is None else shape.as_list()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
