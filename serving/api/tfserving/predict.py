"""`:predict` of TensorFlow Serving's REST API."""

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from serving.api.body import BodyReader
from serving.api.columns import Columns
from serving.api.decisions import Decoded
from serving.api.messages import Answer, Request, json_answer
from serving.api.tensors import Array
from serving.api.tfserving import tensors
from serving.errors import InvalidRequestError, NotFoundError, NotReadyError
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec
from serving.policy.observations import require_shape
from serving.registry.repository import Repository

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy

DEFAULT_SIGNATURE = "serving_default"
_MAX_INT64 = 2**63 - 1


class PredictProtocol:
    """`POST /v1/models/<name>:predict`, of the served version, another one or a label."""

    rules = (
        "/v1/models/<tfname:name>:predict",
        "/v1/models/<tfname:name>/versions/<tfnumber:version>:predict",
        "/v1/models/<tfname:name>/labels/<tfname:label>:predict",
    )

    def __init__(self, repository: Repository, bodies: BodyReader, max_rows: int) -> None:
        self._repository = repository
        self._bodies = bodies
        self._max_rows = max_rows

    def decode(
        self, request: Request, name: str, version: str | None = None, label: str | None = None
    ) -> Decoded:
        """Decode `instances` or `inputs` of either signature.

        Raises:
            ProblemError: in TensorFlow Serving's words and order.
        """
        number = to_number(version)
        body = self._bodies.read(request)
        self._bodies.require_few_values(body)
        document = tensors.parse(body)
        signature = tensors.signature_name(document) or DEFAULT_SIGNATURE
        policy = find(self._repository, name, number, label)
        inputs, as_rows = tensors.tensors(document, input_dtypes(policy, signature), self._max_rows)
        observations = inputs["observations"]
        require_shape(observations.shape, policy.card.observations.names, self._max_rows)
        sampling = _sampling(inputs) if "uniforms" in inputs else SamplingSpec()
        return DecisionRequest(policy, observations, sampling), partial(_encode, as_rows)


def _sampling(inputs: dict[str, Array]) -> SamplingSpec:
    rows = len(inputs["observations"])
    for name in ("uniforms", "deterministic"):
        if inputs[name].shape != (rows,):
            raise InvalidRequestError(
                f"{name}: the shape is {list(inputs[name].shape)}, "
                f"expected [{rows}] for as many observations"
            )
    with np.errstate(over="ignore"):
        uniforms = inputs["uniforms"].astype(np.float32)
    if not np.isfinite(uniforms).all():
        raise InvalidRequestError("uniforms: one is not finite")
    return SamplingSpec(uniforms=uniforms, deterministic=inputs["deterministic"])


def _encode(as_rows: bool, result: ActResult, _columns: Columns) -> Answer:
    outputs = result.outputs._asdict()
    if as_rows:
        return Answer(200, tensors.rows(outputs), "application/json")
    return json_answer({"outputs": outputs})


def find(repository: Repository, name: str, version: int | None, label: str | None) -> "Policy":
    """The policy that a path names.

    Raises:
        InvalidRequestError: no version has that label.
        NotFoundError: there is no such model or version, or it is not served.
    """
    try:
        return repository.policy(name, version=version, label=label)
    except (NotFoundError, NotReadyError) as error:
        if label is not None:
            reason = f"Unrecognized servable version label: {label}"
            raise InvalidRequestError(f"{reason} ({error.detail})") from error
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        reason = f"Servable not found for request: {which}"
        raise NotFoundError(f"{reason} ({error.detail})") from error


def to_number(version: str | None) -> int | None:
    """The version in a path.

    Raises:
        InvalidRequestError: no 64 bits hold it.
    """
    number = None if version is None else int(version)
    if number is not None and number > _MAX_INT64:
        raise InvalidRequestError(f"Failed to convert version: {version} to numeric.")
    return number


def input_dtypes(policy: "Policy", signature: str) -> dict[str, str]:
    """The inputs of a signature, and "float" or "bool" for each.

    Raises:
        InvalidRequestError: there is no such signature to predict by.
    """
    if signature not in policy.signatures or not policy.signatures[signature]["inputs"]:
        raise InvalidRequestError(
            f'Serving signature name: "{signature}" not found in signature def'
        )
    return {
        name: tensor["dtype"].removeprefix("DT_").lower()
        for name, tensor in sorted(policy.signatures[signature]["inputs"].items())
    }
