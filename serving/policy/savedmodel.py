"""A loaded policy: a SavedModel, checked against its card and its golden values."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.json_format import MessageToDict  # no stubs

from serving.errors import first_line
from serving.policy import graph, tensorflow_adapter
from serving.policy.artefact import GOLDEN, Artefact, ArtefactError
from serving.policy.observations import ROW_BLOCK, FloatArray, Ranges
from serving.policy.outputs import PolicyOutputs

_SIGNATURES = ("serving_default", "act")
_INPUTS = ("observations", "uniforms", "deterministic")  # of `act`
_SMALL_CALL_ROWS = 16  # exported graphs pad smaller batches to this size


class Policy:
    """One version, loaded, checked and warmed up.

    Attributes:
        name, version: of the folder that was copied.
        digest: the first hex digits of its content's digest.
        key: name, version and digest.
        card, card_json, golden, pictures: as in `Artefact`.
        ranges: the ranges of the observations that training saw.
        identity_json: `identity` as JSON.
        signatures: all signatures of the SavedModel, each in protobuf's JSON form.
    """

    def __init__(
        self, model_dir: Path, artefact: Artefact, name: str, version: int, digest: str
    ) -> None:
        """Load a copy of a version, from which `artefact` was read.

        Raises:
            ArtefactError: it cannot be loaded, its signatures are not the specified ones, or it
                does not compute its golden values.
        """
        self.name, self.version, self.digest = self.key = name, version, digest
        self.card, self.card_json, self.golden, self.pictures = artefact
        known = self.card.observations
        low, high = np.array([known.seen_low, known.seen_high], np.float32)
        self.ranges = Ranges(known.names, low, high)
        self.identity_json = msgspec.json.encode(self.identity())
        self._lock = threading.Lock()
        meta_graph = graph.read_meta_graph(model_dir)
        _require_signatures(
            meta_graph.signature_def, len(known.names), len(self.card.actions.names)
        )
        self.signatures: dict[str, Any] = {
            name: MessageToDict(
                signature,
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
            for name, signature in sorted(meta_graph.signature_def.items())
        }
        act = meta_graph.signature_def["act"]
        try:
            self._call = tensorflow_adapter.make_callable(
                graph.load(meta_graph, _SIGNATURES, model_dir / "variables" / "variables"),
                feed=[act.inputs[name].name for name in _INPUTS],
                fetch=[act.outputs[name].name for name in PolicyOutputs._fields],
            )
        except ArtefactError:
            raise
        # TensorFlow can raise anything; the service stays up and reports it.
        except Exception as error:
            raise ArtefactError(f"TensorFlow cannot load it: {first_line(error)}") from error
        self._require_golden()

    def act(
        self, observations: FloatArray, uniforms: FloatArray, deterministic: npt.NDArray[np.bool_]
    ) -> PolicyOutputs:
        """Decide about observations `[B, O]`.

        The uniforms `[B]` in [0, 1) are the randomness of each row; `deterministic` `[B]` is true
        for rows that take the most probable action. A row's outputs do not depend on other rows.
        """
        rows = len(observations)
        missing = -rows % ROW_BLOCK
        if missing and rows > _SMALL_CALL_ROWS:
            inputs = (_padded(array, missing) for array in (observations, uniforms, deterministic))
            return PolicyOutputs._make(output[:rows] for output in self.act(*inputs))
        # Concurrent calls are slower than calls one after another.
        with self._lock:
            return PolicyOutputs(*self._call(observations, uniforms, deterministic))

    def identity(self) -> dict[str, str | int]:
        """The name, version and digest, as in every answer."""
        return {"name": self.name, "version": self.version, "digest": self.digest}

    def _require_golden(self) -> None:
        """Recompute the golden values; this also warms up the function."""
        golden = self.golden
        try:
            observations = np.array(golden.observations, np.float32)
            # In whole blocks: `act` then trims no output, so the shapes are the graph's.
            missing = -len(observations) % ROW_BLOCK
            blocks = np.pad(observations, ((0, missing), (0, 0)), "edge")
            rows = len(blocks)
            outputs = self.act(blocks, np.zeros(rows, np.float32), np.ones(rows, np.bool_))
            _require_outputs(outputs, rows, len(self.card.actions.names))
            for name in ("action_logits", "state_values"):
                computed = getattr(outputs, name)[: len(observations)]
                expected = getattr(golden, name)
                # Compare shapes too: broadcasting with an empty array would compare nothing.
                is_same = np.shape(expected) == computed.shape and np.allclose(
                    computed, expected, golden.tolerance, golden.tolerance
                )
                if not is_same:
                    raise ArtefactError(f"its {name} do not match {GOLDEN}")
        except (ValueError, tf.errors.OpError) as error:
            reason = f"its golden values cannot be computed: {first_line(error)}"
            raise ArtefactError(reason) from error


def _padded(array: npt.NDArray[Any], missing: int) -> npt.NDArray[Any]:
    """An array of rows, followed by `missing` rows of zeros."""
    return np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])


def _require_signatures(signatures: Mapping[str, Any], features: int, actions: int) -> None:
    """Raise `ArtefactError` if one of the two signatures is missing or not as specified."""
    rows, numbers = ("float32", [None, features]), ("float32", [None])
    outputs = _designed_outputs(None, actions)
    act_inputs = {"observations": rows, "uniforms": numbers, "deterministic": ("bool", [None])}
    for name, inputs in [("serving_default", {"observations": rows}), ("act", act_inputs)]:
        if name not in signatures:
            raise ArtefactError(f"it has no signature {name!r}")
        for what, wanted in [("inputs", inputs), ("outputs", outputs)]:
            tensors = getattr(signatures[name], what)
            seen = {key: _type_and_shape(tensor) for key, tensor in tensors.items()}
            if seen != wanted:
                raise ArtefactError(f"signature {name!r} has the {what} {seen}, expected {wanted}")


def _require_outputs(outputs: PolicyOutputs, rows: int, actions: int) -> None:
    """Raise `ArtefactError` if a computed output is unusable, whatever the file declares."""
    for name, wanted in _designed_outputs(rows, actions).items():
        output = getattr(outputs, name)
        seen = output.dtype.name, list(output.shape)
        if seen != wanted:
            raise ArtefactError(f"its {name} are computed as {seen}, expected {wanted}")
        if not np.isfinite(output).all():
            raise ArtefactError(f"its {name} are not finite")
        if seen[0] == "int64" and not ((output >= 0) & (output < actions)).all():
            raise ArtefactError(f"its {name} are not all from 0 to {actions - 1}")


def _designed_outputs(rows: int | None, actions: int) -> dict[str, tuple[str, list[int | None]]]:
    """The type and shape of every output."""
    logits: tuple[str, list[int | None]] = ("float32", [rows, actions])
    numbers: tuple[str, list[int | None]] = ("float32", [rows])
    whole_numbers: tuple[str, list[int | None]] = ("int64", [rows])
    return {
        "action_logits": logits,
        "action_probabilities": logits,
        "actions": whole_numbers,
        "greedy_actions": whole_numbers,
        "log_probabilities": numbers,
        "state_values": numbers,
    }


def _type_and_shape(tensor: Any) -> tuple[str, list[int | None] | None]:
    """The type and shape of a `TensorInfo`; None stands for an unknown size or an unknown rank."""
    shape = tf.TensorShape(tensor.tensor_shape)
    return tf.as_dtype(tensor.dtype).name, None if shape.rank is None else shape.as_list()
