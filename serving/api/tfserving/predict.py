"""`:predict` of TensorFlow Serving's REST API."""

from typing import TYPE_CHECKING

import numpy as np

from serving.api.body import BodyReader
from serving.api.decisions import Decoded
from serving.api.messages import Answer, Request, episode_id, json_answer
from serving.api.tensors import Array
from serving.api.tfserving.tensors import parse, tensors
from serving.errors import InvalidRequestError, NotFoundError, NotReadyError
from serving.policy.artefact import version_number
from serving.policy.columns import Columns
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec
from serving.policy.observations import require_shape
from serving.registry.assignment import Choice
from serving.registry.repository import Repository

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy

# What stands before each output of a row of `predictions`, in their order; before the first one
# the end of the row above it.
_OPENINGS = {
    "action_logits": b'},{"action_logits":[',
    "action_probabilities": b'],"action_probabilities":[',
    "actions": b'],"actions":',
    "greedy_actions": b',"greedy_actions":',
    "log_probabilities": b',"log_probabilities":',
    "state_values": b',"state_values":',
}


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
        document, signature = parse(body)
        episode = episode_id(request)
        policy, selection = find(self._repository, name, number, label, episode)
        inputs, as_rows = tensors(document, _input_dtypes(policy, signature), self._max_rows)
        observations = inputs["observations"]
        require_shape(observations.shape, policy.card.observations.names, self._max_rows)
        sampling = _sampling(inputs) if "uniforms" in inputs else SamplingSpec()
        encode = _encode_rows if as_rows else _encode_columns
        decision = DecisionRequest(policy, observations, sampling, episode, selection=selection)
        return decision, encode


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


def _encode_columns(result: ActResult, _columns: Columns) -> Answer:
    return json_answer({"outputs": result.outputs._asdict()})


def _encode_rows(result: ActResult, columns: Columns) -> Answer:
    # No Python loop over rows: each column fills every place that is its own.
    pieces = [piece for opening in _OPENINGS.values() for piece in (opening, b"")]
    step = len(pieces)
    pieces *= result.stop - result.start
    for place, name in enumerate(_OPENINGS):
        pieces[2 * place + 1 :: step] = columns[name][result.start : result.stop]
    pieces[0] = pieces[0].removeprefix(b"},")
    return Answer(200, b'{"predictions":[%b}]}' % b"".join(pieces), "application/json")


def find(
    repository: Repository,
    name: str,
    version: int | None,
    label: str | None,
    episode: str | None = None,
) -> Choice:
    """The policy that a path names, or else the one for an episode.

    Raises:
        InvalidRequestError: no version has that label.
        NotFoundError: there is no such model or version, or it is not served.
    """
    try:
        return repository.choose(name, version=version, label=label, episode=episode)
    except (NotFoundError, NotReadyError) as error:
        if label is not None:
            reason = f"Unrecognized servable version label: {label} ({error.detail})"
            raise InvalidRequestError(reason) from error
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        reason = f"Servable not found for request: {which} ({error.detail})"
        raise NotFoundError(reason) from error


def to_number(version: str | None) -> int | None:
    """The version in a path.

    Raises:
        InvalidRequestError: no int64 holds it.
    """
    if version is None:
        return None
    number = version_number(version.lstrip("0") or "0")
    if number is None:
        raise InvalidRequestError(f"Failed to convert version: {version} to numeric.")
    return number


def _input_dtypes(policy: "Policy", signature: str) -> dict[str, str]:
    """The inputs of a signature, and "float" or "bool" for each."""
    inputs = policy.signatures.get(signature, {}).get("inputs")
    if not inputs:
        raise InvalidRequestError(
            f'Serving signature name: "{signature}" not found in signature def'
        )
    names = sorted(inputs)
    return {name: inputs[name]["dtype"].removeprefix("DT_").lower() for name in names}
