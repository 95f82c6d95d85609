"""`:predict` of TensorFlow Serving's REST API."""

from typing import TYPE_CHECKING

from serving.api.body import BodyReader
from serving.api.decisions import Decoded
from serving.api.messages import Answer, Request, episode_id, json_answer
from serving.api.tfserving.prediction import decision, find
from serving.api.tfserving.tensors import parse, tensors
from serving.errors import InvalidRequestError
from serving.policy.artefact import version_number
from serving.policy.columns import Columns
from serving.policy.decide import ActResult
from serving.registry.repository import Repository

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy

# The JSON before each output of a row of `predictions`, in the order of the outputs; the first
# also ends the row before.
_OPENINGS = {
    "action_logits": b'},{"action_logits":[',
    "action_probabilities": b'],"action_probabilities":[',
    "actions": b'],"actions":',
    "greedy_actions": b',"greedy_actions":',
    "log_probabilities": b',"log_probabilities":',
    "state_values": b',"state_values":',
}


class PredictProtocol:
    """`POST /v1/models/<name>:predict`, for the served version, a named version or a label."""

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
        episode = episode_id(request.headers)
        choice = find(self._repository, name, number, label, episode)
        dtypes = _input_dtypes(choice.policy, signature)
        inputs, as_rows = tensors(document, dtypes, self._max_rows)
        encode = _encode_rows if as_rows else _encode_columns
        return decision(choice, inputs, episode, self._max_rows), encode


def _encode_columns(result: ActResult, _columns: Columns) -> Answer:
    return json_answer({"outputs": result.outputs._asdict()})


def _encode_rows(result: ActResult, columns: Columns) -> Answer:
    # No Python loop over rows: a slice assignment writes each column into all rows.
    pieces = [piece for opening in _OPENINGS.values() for piece in (opening, b"")]
    step = len(pieces)
    pieces *= result.stop - result.start
    for place, name in enumerate(_OPENINGS):
        pieces[2 * place + 1 :: step] = columns[name][result.start : result.stop]
    pieces[0] = pieces[0].removeprefix(b"},")
    return Answer(200, b'{"predictions":[%b}]}' % b"".join(pieces), "application/json")


def to_number(version: str | None) -> int | None:
    """The version in a path.

    Raises:
        InvalidRequestError: it does not fit in int64.
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
