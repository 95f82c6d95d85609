"""`POST /feedback`: the outcomes of decisions, for the decision log."""

from collections.abc import Iterator

import msgspec
from flask import Blueprint, Response, g, request
from msgspec import UNSET

from serving.api.body import BodyReader, decode, require_unique_keys
from serving.api.messages import from_flask, json_answer, require_plain_word, to_flask
from serving.errors import ConflictError, InvalidRequestError
from serving.record.log import DecisionLog
from serving.schemas import FeedbackRequest, FeedbackResponse

_DECODER = msgspec.json.Decoder(FeedbackRequest)


def feedback_blueprint(log: DecisionLog | None, bodies: BodyReader) -> Blueprint:
    """`POST /feedback`, which is recorded in `log`."""
    blueprint = Blueprint("feedback", __name__)

    @blueprint.post("/feedback")
    def feedback() -> Response:
        if log is None:
            raise ConflictError("feedback is not recorded: the service has no --decision-log")
        received = from_flask(request)
        try:
            body = bodies.read_json(received)
            given = decode(body, _DECODER)
        finally:
            bodies.release(received)
        require_unique_keys(body, _count_strings(given))
        _require_valid(given)
        log.record_feedback(g.request_id, given)
        return to_flask(json_answer(FeedbackResponse(g.request_id))._replace(status=202))

    return blueprint


def _require_valid(given: FeedbackRequest) -> None:
    """Raise `InvalidRequestError` unless it has one subject and one content that fits it."""
    if (given.episode is UNSET) == (given.request is UNSET):
        raise InvalidRequestError("expected exactly one of 'episode' and 'request'")
    if (given.rewards is UNSET) == (given.return_ is UNSET):
        raise InvalidRequestError("expected exactly one of 'rewards' and 'return'")
    is_part = given.ended is False or bool(given.step)  # UNSET is false
    if given.episode is not UNSET and given.return_ is not UNSET and is_part:
        raise InvalidRequestError(
            "the 'return' of an episode is of all its steps: give the 'rewards' of a part"
        )
    for what, name in (("episode", given.episode), ("request", given.request)):
        require_plain_word(what, None if name is UNSET else name)


def _count_strings(given: FeedbackRequest) -> Iterator[int]:
    """How many strings of a body the decoder kept: its keys, and the id of its subject."""
    fields = [getattr(given, name) is not UNSET for name in given.__struct_fields__]
    yield sum(fields) + (given.episode is not UNSET) + (given.request is not UNSET)
