"""Inference requests of the Open Inference Protocol v2, over any transport. No HTTP."""

from collections.abc import Callable
from typing import Any

from serving.api.oip.schemas import (
    InferInput,
    InferRequest,
    OutputParameters,
    RequestParameters,
    SharedMemory,
)
from serving.api.tensors import DATATYPES, Array
from serving.errors import InvalidRequestError, NotFoundError
from serving.policy.artefact import version_number
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec
from serving.policy.observations import require_shape
from serving.policy.outputs import PolicyOutputs
from serving.policy.savedmodel import Policy
from serving.registry.assignment import Choice
from serving.registry.repository import Repository


class Inference:
    """Turns inference requests into decision requests."""

    def __init__(self, repository: Repository, max_rows: int) -> None:
        self._repository = repository
        self._max_rows = max_rows

    def decision(
        self,
        given: InferRequest,
        name: str,
        version: str | None,
        episode: str | None,
        numbers: Callable[[InferInput], Array],
    ) -> tuple[DecisionRequest, dict[str, bool]]:
        """What to decide, and the outputs to send; see `_chosen_outputs`.

        Args:
            given: the request, without its tensor's numbers.
            name: of the model.
            version: of the model, if the request names one.
            episode: id of the rows' episode.
            numbers: reads the numbers of the only input, after its shape is checked.

        Raises:
            ProblemError: a part of it is wrong, or no such policy is served.
        """
        policy, selection = find(self._repository, name, version, episode)
        parameters = given.parameters or RequestParameters()
        chosen = _chosen_outputs(given, parameters)
        rows = numbers(_input(given.inputs, policy, self._max_rows))
        seed = None if parameters.seed is None else int(parameters.seed)
        sampling = SamplingSpec(seed, parameters.deterministic is True)
        return DecisionRequest(policy, rows, sampling, episode, selection=selection), chosen


def answer_parameters(policy: Policy, result: ActResult) -> dict[str, Any]:
    """The parameters of an answer."""
    parameters: dict[str, Any] = {"seed": result.seed, "digest": policy.digest}
    if result.warnings:
        # A parameter is a string, a number or a boolean.
        parameters["warnings"] = "\n".join(result.warnings)
    return parameters


def find(
    repository: Repository, name: str, version: str | None, episode: str | None = None
) -> Choice:
    """The version that a request names; otherwise the version for its episode.

    Raises:
        NotFoundError, NotReadyError: there is none, or no version of the model is served.
    """
    if version is None:
        return repository.choose(name, episode=episode)
    number = version_number(version)
    if number is None:
        raise NotFoundError(f"versions are whole numbers, and {version!r} is none")
    return repository.choose(name, version=number)


def _input(inputs: list[InferInput], policy: Policy, max_rows: int) -> InferInput:
    """The only input, of the shape `[B, O]`."""
    if [tensor.name for tensor in inputs] != ["observations"]:
        raise InvalidRequestError("inputs: expected exactly one, named 'observations'")
    (tensor,) = inputs
    if tensor.datatype not in DATATYPES:
        raise InvalidRequestError(
            f"inputs[0].datatype: {tensor.datatype!r} is not one of {', '.join(DATATYPES)}"
        )
    require_shape(tensor.shape, policy.card.observations.names, max_rows)
    _require_no_shared_memory("inputs[0]", tensor.parameters or SharedMemory())
    return tensor


def _chosen_outputs(given: InferRequest, parameters: RequestParameters) -> dict[str, bool]:
    """The names of the outputs to send, and for each whether it is sent as bytes."""
    names = PolicyOutputs._fields
    as_bytes = parameters.binary_data_output is True
    if not given.outputs:
        return dict.fromkeys(names, as_bytes)
    chosen: dict[str, bool] = {}
    for output in given.outputs:
        if output.name not in names or output.name in chosen:
            problem = "asked for twice" if output.name in chosen else "unknown"
            raise InvalidRequestError(
                f"outputs: {output.name!r} is {problem}; there are {', '.join(names)}"
            )
        of_output = output.parameters or OutputParameters()
        _require_no_shared_memory(f"outputs: {output.name!r}", of_output)
        if of_output.classification is not None:
            raise InvalidRequestError(f"outputs: {output.name!r}: classification is not supported")
        own = of_output.binary_data
        chosen[output.name] = as_bytes if own is None else own
    return chosen


def _require_no_shared_memory(what: str, parameters: SharedMemory) -> None:
    if parameters.shared_memory_region is not None:
        raise InvalidRequestError(f"{what}: shared memory is not supported")
