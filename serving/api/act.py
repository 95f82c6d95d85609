"""`POST /act`: observations in, decisions out."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from serving.api.body import BodyReader, decode, require_unique_keys
from serving.api.decisions import Decoded
from serving.api.messages import Answer, Request, json_answer
from serving.errors import InvalidRequestError
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
        require_unique_keys(body, count_keys(given, rows))
        policy = self._repository.policy(name)
        seed = int(given.seed) if isinstance(given.seed, int | float) else None
        sampling = SamplingSpec(seed, given.deterministic is True)
        return Decoded(DecisionRequest(policy, rows, sampling), partial(encode_act, policy))


def encode_act(policy: "Policy", result: ActResult) -> Answer:
    """Write the decisions of one request."""
    outputs, seed, warnings = result
    return json_answer(
        {
            "actions": outputs.actions,
            "action_logits": outputs.action_logits,
            "action_probabilities": outputs.action_probabilities,
            "log_probabilities": outputs.log_probabilities,
            "state_values": outputs.state_values,
            "seed": seed,
            "model": policy.identity(),
            "warnings": warnings,
        }
    )


def observation_rows(given: ActRequest) -> list[Row]:
    """The observations, one or many.

    Raises:
        InvalidRequestError: both or none were given.
    """
    if given.observations is not UNSET and given.observation is not UNSET:
        raise InvalidRequestError("'observations' and 'observation' exclude each other")
    if given.observations is not UNSET:
        return given.observations
    if given.observation is not UNSET:
        return [given.observation]
    raise InvalidRequestError("'observations' is missing: a list of rows")


def count_keys(given: ActRequest, rows: list[Row]) -> Iterator[int]:
    """How many keys of the body the decoder kept: without those of the rows, then with them."""
    fields = sum(getattr(given, field) is not UNSET for field in given.__struct_fields__)
    yield fields
    yield fields + sum(len(row) for row in rows if isinstance(row, dict))
