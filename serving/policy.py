"""A loaded policy. The only file of the service that imports TensorFlow."""

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped] # no stubs
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.eager import context

from serving.artefact import Artefact, ArtefactError, Golden
from serving.observations import Ranges

FloatArray = npt.NDArray[np.float32]

SIGNATURE = "act"


class Decision(NamedTuple):
    """What the policy says about `B` observations: the outputs of its signature."""

    action_logits: FloatArray  # [B, A]
    action_probabilities: FloatArray  # [B, A]
    actions: npt.NDArray[np.int64]  # [B], the most probable where asked for, else sampled
    greedy_actions: npt.NDArray[np.int64]  # [B], the most probable
    log_probabilities: FloatArray  # [B], of `actions`
    state_values: FloatArray  # [B]

    def rows(self, start: int, stop: int) -> "Decision":
        """The part about some of the observations."""
        return Decision(
            self.action_logits[start:stop],
            self.action_probabilities[start:stop],
            self.actions[start:stop],
            self.greedy_actions[start:stop],
            self.log_probabilities[start:stop],
            self.state_values[start:stop],
        )


class Policy:
    """One version, loaded, checked and warmed up.

    Attributes:
        name, version: of the folder it was loaded from.
        card: the typed part of the policy card.
        card_json: the whole policy card as it stands in the file.
        ranges: what training saw of the observations.
        pictures: of the run that made it, by name.
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
        self._lock = threading.Lock()
        # The kernels of versions that are gone would be kept for ever. Those of the version that
        # is served are made again by its next call, and those of this one when it is checked.
        context.context().clear_kernel_cache()
        try:
            self._model = tf.saved_model.load(model_dir)  # the function does not keep it alive
            self.signatures = _signatures(model_dir)
        # TensorFlow raises whatever it likes; the service stays up and says what it was.
        except Exception as error:
            raise ArtefactError(f"TensorFlow cannot load it: {_first_line(error)}") from error
        _require_signatures(
            self._model.signatures,
            observation_size=len(self.card.observations.names),
            num_actions=len(self.card.actions.names),
        )
        self._function = self._model.signatures[SIGNATURE]
        self._captured = self._function.captured_inputs
        self._output_names = sorted(self._function.structured_outputs)
        self._output_types = [output.dtype for output in self._function.outputs]
        self._require_golden(golden)

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
        # The function as one operation: a third of what a call of the signature costs. Its
        # inputs and outputs are in the order of their names.
        arguments = [deterministic, observations, uniforms, *self._captured]
        # Calls from several threads at once are slower than one after the other.
        with self._lock:
            outputs = tf.raw_ops.StatefulPartitionedCall(
                args=arguments,
                Tout=self._output_types,
                f=self._function,
                # To hand these few small operations to other threads costs more than they do.
                executor_type="SINGLE_THREADED_EXECUTOR",
            )
        arrays = {
            name: output.numpy() for name, output in zip(self._output_names, outputs, strict=True)
        }
        return Decision(**arrays)

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


def _signatures(model_dir: Path) -> dict[str, Any]:
    content = (model_dir / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    return {
        name: MessageToDict(
            signature,
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        for name, signature in sorted(graph.signature_def.items())
    }


def _require_signatures(signatures: Any, observation_size: int, num_actions: int) -> None:
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
        for what, specs, wanted in [
            ("inputs", found.structured_input_signature[1], expected),
            ("outputs", found.structured_outputs, outputs),
        ]:
            seen = {key: (spec.dtype.name, spec.shape.as_list()) for key, spec in specs.items()}
            if seen != wanted:
                raise ArtefactError(f"signature {name!r} has the {what} {seen}, expected {wanted}")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
