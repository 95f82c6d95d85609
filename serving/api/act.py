"""`POST /act`: observations in, decisions out."""

import contextlib
import re
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from flask import Blueprint, Response, request

from serving.api.encoding import json_response
from serving.errors import InvalidRequestError, NotJsonError, UnsupportedMediaTypeError
from serving.observations import out_of_range_warnings, to_array
from serving.repository import Repository
from serving.sampling import MAX_SEED, draw_seed, uniforms
from serving.settings import Settings

Row = list[float] | dict[str, float]


class ActRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request; exactly one of `observations` and `observation`."""

    observations: list[Row] | msgspec.UnsetType = msgspec.UNSET
    observation: Row | msgspec.UnsetType = msgspec.UNSET
    deterministic: bool = False
    seed: Annotated[int, msgspec.Meta(ge=0, le=MAX_SEED)] | None = None

    def rows(self) -> list[Row]:
        """The observations, one or many.

        Raises:
            InvalidRequestError: both or none were given.
        """
        if self.observation is not msgspec.UNSET and self.observations is not msgspec.UNSET:
            raise InvalidRequestError("'observations' and 'observation' exclude each other")
        if self.observations is not msgspec.UNSET:
            return self.observations
        if self.observation is not msgspec.UNSET:
            return [self.observation]
        raise InvalidRequestError("'observations' is missing: a list of rows")


def act_blueprint(repository: Repository, settings: Settings) -> Blueprint:
    """`POST /act`."""
    blueprint = Blueprint("act", __name__)
    decoder = msgspec.json.Decoder(ActRequest)

    @blueprint.post("/act")
    def act() -> Response:
        body = decode(decoder)
        policy = repository.current()
        observations = to_array(body.rows(), policy.card.observations.names, settings.max_rows)
        batch = len(observations)
        seed = draw_seed() if body.seed is None else body.seed
        decision = policy.act(
            observations, uniforms(seed, batch), np.full(batch, body.deterministic)
        )
        require_finite(decision.action_logits)
        answer = {
            "actions": decision.actions,
            "action_logits": decision.action_logits,
            "action_probabilities": decision.action_probabilities,
            "log_probabilities": decision.log_probabilities,
            "state_values": decision.state_values,
            "seed": seed,
            "model": policy.identity(),
            "warnings": out_of_range_warnings(observations, policy.card.observations),
        }
        return json_response(answer)

    return blueprint


def decode(decoder: msgspec.json.Decoder[ActRequest]) -> ActRequest:
    """Parse and validate the body of the current request.

    Raises:
        UnsupportedMediaTypeError: it is not declared to be JSON.
        NotJsonError: it is not JSON.
        InvalidRequestError: a part of it is missing, unknown or of the wrong type.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaTypeError(
            f"the Content-Type is {request.mimetype or 'missing'!r}, not 'application/json'"
        )
    body = request.get_data(cache=False)
    try:
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            # A wrong type may stand before what is not JSON at all.
            with contextlib.suppress(msgspec.ValidationError):
                msgspec.json.decode(body)
            raise InvalidRequestError(describe(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJsonError(f"the body is not JSON: {error}") from error


def describe(message: str) -> str:
    """Put the place in front: "observations[0][2]: expected `float`, got `str`"."""
    found = re.fullmatch(r"(.*) - at `\$\.?(.*)`", message, re.DOTALL)
    if found is None:
        return message
    what, where = found.groups()
    return f"{where}: {what[0].lower()}{what[1:]}" if where else what


def require_finite(logits: npt.NDArray[np.float32]) -> None:
    """Observations near the end of float32's range can overflow inside the network."""
    finite = np.isfinite(logits).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise InvalidRequestError(f"observations[{row}]: too large, the policy overflows on it")
