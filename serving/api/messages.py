"""A request and an answer, the same for the worker and for Flask."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flask import Blueprint, Response
from flask import Request as FlaskRequest
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import Rule

from serving.errors import Headers, InvalidRequestError
from serving.policy.columns import encode
from serving.schemas import PLAIN_WORD

is_plain_word = re.compile(PLAIN_WORD).fullmatch


@dataclass(slots=True)
class Request:
    """A request whose head is parsed and whose body has arrived."""

    method: str
    path: str  # percent-decoded, without the query
    headers: Mapping[str, str]  # names in lower case; values of one name are joined with commas
    body: bytes  # as sent, without its chunks
    remote: str  # address of the client
    unpacked_bytes: int = 0  # taken from the budget for the unpacked body


class Answer(NamedTuple):
    """A response, without the headers that every response has."""

    status: int
    body: bytes
    content_type: str
    headers: Headers = ()


def episode_id(headers: Mapping[str, str], given: str | None = None) -> str | None:
    """The episode of a request, from its body (`given`) or, without that, its headers.

    Raises:
        InvalidRequestError: one of them is not a plain word.
    """
    in_header = headers.get("x-episode-id")
    require_plain_word("X-Episode-ID", in_header)
    require_plain_word("episode", given)
    return in_header if given is None else given


def require_plain_word(what: str, name: str | None) -> None:
    """Raise `InvalidRequestError` if the name of an episode or a request is not a plain word."""
    if name is not None and not is_plain_word(name):
        raise InvalidRequestError(f"{what}: expected 1 to 128 letters, digits, '.', '_' and '-'")


def from_flask(request: FlaskRequest) -> Request:
    """Convert Flask's request."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    body = request.get_data(cache=False)
    return Request(request.method, request.path, headers, body, request.remote_addr or "")


def to_flask(answer: Answer) -> Response:
    """Convert an answer to Flask's response."""
    response = Response(answer.body, answer.status, content_type=answer.content_type)
    response.headers.extend(answer.headers)
    return response


def json_answer(content: object) -> Answer:
    """Answer with JSON."""
    return Answer(200, encode(content), "application/json")


def json_response(content: object) -> Response:
    """Answer with JSON, as Flask's response."""
    return to_flask(json_answer(content))


def add_catch_all(blueprint: Blueprint, rules: Sequence[str], view: Callable[..., Any]) -> None:
    """Have a view answer the requests that match `rules` and that no other route takes.

    A Werkzeug rule without methods takes any, TRACE and unknown ones included. A Flask rule always
    has some, which a 405 for another method would then list as allowed.
    """
    endpoint = f"{blueprint.name}.other"
    blueprint.endpoint(endpoint)(view)

    def register(state: BlueprintSetupState) -> None:
        for rule in rules:
            state.app.url_map.add(Rule(rule, endpoint=endpoint))

    blueprint.record(register)
