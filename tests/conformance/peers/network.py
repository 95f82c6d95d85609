"""The network that every peer serves: the tensors of a CartPole artefact, with made-up weights."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

NAME, VERSION = "cartpole", "1"


class TensorInfo(NamedTuple):
    """A tensor of the model; -1 in the shape stands for the number of rows."""

    datatype: str  # of the Open Inference Protocol
    shape: list[int]


INPUTS = {"observations": TensorInfo("FP32", [-1, 4])}
OUTPUTS = {
    "action_logits": TensorInfo("FP32", [-1, 2]),
    "action_probabilities": TensorInfo("FP32", [-1, 2]),
    "actions": TensorInfo("INT64", [-1]),
    "greedy_actions": TensorInfo("INT64", [-1]),
    "log_probabilities": TensorInfo("FP32", [-1]),
    "state_values": TensorInfo("FP32", [-1]),
}
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype(np.float32), "INT64": np.dtype(np.int64)}


def described(tensors: dict[str, TensorInfo]) -> list[dict[str, Any]]:
    """As the metadata of a model describes tensors."""
    return [{"name": name} | info._asdict() for name, info in tensors.items()]


class Network:
    """One hidden layer; it samples actions from its own random numbers."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.hidden = self.rng.normal(size=(4, 64)).astype(np.float32)
        self.heads = self.rng.normal(size=(64, 3)).astype(np.float32)

    def __call__(
        self, observations: npt.NDArray[Any], names: list[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """The outputs with these names, or all without names, for an array [rows, 4].

        Raises ValueError if the array has another shape or a name is unknown.
        """
        if observations.ndim != 2 or observations.shape[1] != 4:
            raise ValueError(f"observations have the shape {observations.shape}, not [rows, 4]")
        if unknown := set(names or ()) - set(OUTPUTS):
            raise ValueError(f"there is no output {unknown.pop()!r}")
        heads = np.tanh(observations.astype(np.float32) @ self.hidden) @ self.heads
        logits = heads[:, :2]
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        actions = (self.rng.random(len(logits)) >= probabilities[:, 0]).astype(np.int64)
        outputs = {
            "action_logits": logits,
            "action_probabilities": probabilities,
            "actions": actions,
            "greedy_actions": logits.argmax(axis=1),
            "log_probabilities": np.log(probabilities[np.arange(len(logits)), actions]),
            "state_values": heads[:, 2],
        }
        return {
            name: np.ascontiguousarray(outputs[name], DTYPES[OUTPUTS[name].datatype])
            for name in names or outputs
        }
