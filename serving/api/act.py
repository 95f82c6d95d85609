"""`POST /act`: observations in, decisions out."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from serving.api.body import BodyReader, decode, require_unique_keys
from serving.api.decisions import Decoded
from serving.api.messages import Answer, Request, episode_id
from serving.errors import InvalidRequestError
from serving.policy.columns import Columns, encode
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec
from serving.registry.repository import Repository
from serving.schemas import ActRequest, Row

if TYPE_CHECKING:
    from serving.policy.savedmodel import Policy

_DECODER = msgspec.json.Decoder(ActRequest)


class ActProtocol:
    """`POST /act` for the default model, `POST /models/<name>/act` for any."""

    rules = ("/act", "/models/<name>/act")

    def __init__(self, repository: Repository, bodies: BodyReader) -> None:
        self._repository = repository
        self._bodies = bodies

    def decode(self, request: Request, name: str | None = None) -> Decoded:
        """Decode and validate a body, then find the policy.

        Raises:
            ProblemError: it is not JSON, a part of it is wrong, or no policy is served.
        """
        body = self._bodies.read_json(request)
        given = decode(body, _DECODER)
        rows = observation_rows(given)
        require_unique_keys(body, count_strings(given, rows))
        episode = episode_id(request.headers, None if given.episode is UNSET else given.episode)
        policy, selection = self._repository.choose(name, episode=episode)
        seed = int(given.seed) if isinstance(given.seed, int | float) else None
        sampling = SamplingSpec(seed, given.deterministic is True)
        step = int(given.step) if isinstance(given.step, int | float) else None
        decision = DecisionRequest(policy, rows, sampling, episode, step, selection)
        return decision, partial(encode_act, policy)


_ANSWER = (
    b'{"actions":[%b],"action_logits":[%b],"action_probabilities":[%b],"log_probabilities":[%b],'
    b'"state_values":[%b],"seed":%d,"model":%b,"warnings":%b}'
)


def encode_act(policy: "Policy", result: ActResult, columns: Columns) -> Answer:
    """Write the decisions of one request."""
    body = _ANSWER % (
        columns.numbers("actions", result),
        columns.rows("action_logits", result),
        columns.rows("action_probabilities", result),
        columns.numbers("log_probabilities", result),
        columns.numbers("state_values", result),
        result.seed,
        policy.identity_json,
        encode(result.warnings) if result.warnings else b"[]",
    )
    return Answer(200, body, "application/json")


def observation_rows(given: ActRequest) -> list[Row]:
    """The observations, one or many.

    Raises:
        InvalidRequestError: both or none were given.
    """
    if given.observations is not UNSET and given.observation is not UNSET:
        raise InvalidRequestError("'observations' and 'observation' cannot be used together")
    if given.observations is not UNSET:
        return given.observations
    if given.observation is not UNSET:
        return [given.observation]
    raise InvalidRequestError("'observations' is missing: a list of rows")


def count_strings(given: ActRequest, rows: list[Row]) -> Iterator[int]:
    """How many strings of the body the decoder kept: without the rows' keys, then with them."""
    fields = (
        (given.observations is not UNSET)
        + (given.observation is not UNSET)
        + (given.deterministic is not UNSET)
        + (given.seed is not UNSET)
        + 2 * (given.episode is not UNSET)  # its key and itself
        + (given.step is not UNSET)
    )
    yield fields
    yield fields + sum(len(row) for row in rows if isinstance(row, dict))
