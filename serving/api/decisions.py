"""The routes that decide: a table of protocols, and one way through all of them.

Flask answers these routes like all others. The worker calls `answer` instead, with all requests
that are ready, which is the same but for Flask and faster.
"""

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from flask import Flask, Response
from flask import request as flask_request

from serving.api.body import LARGE_BYTES, BodyReader
from serving.api.budget import collection
from serving.api.columns import Columns
from serving.api.exchange import Exchange, Finished, is_request_id
from serving.api.messages import Answer, Request, from_flask, to_flask
from serving.api.problems import from_error, unexpected
from serving.errors import ProblemError
from serving.policy.decide import ActResult, DecisionRequest
from serving.service import DecisionService

logger = logging.getLogger(__name__)

# What a part of a path may be, by the name of Flask's converter.
_PARTS = {"": "[^/]+", "tfname": "[^/:]+", "tfnumber": "[0-9]+"}


# What to decide, and how to write the result.
Encode = Callable[[ActResult, Columns], Answer]
Decoded = tuple[DecisionRequest, Encode]


class DecisionProtocol(Protocol):
    """How requests to decide are written in one protocol."""

    @property
    def rules(self) -> Sequence[str]:
        """Its routes, as Flask writes them."""

    @property
    def decode(self) -> Callable[..., Decoded]:
        """Decodes a `Request`, with the parts of its path by their names in the rule.

        Raises:
            ProblemError: it is wrong, or no policy is served that it asks for.
        """


class Route(NamedTuple):
    """One route of the table."""

    rule: str
    path: re.Pattern[str]
    protocol: DecisionProtocol


class Call(NamedTuple):
    """A request and the route that it takes."""

    route: Route
    parts: dict[str, str]
    request: Request


class DecisionRoutes:
    """Answers requests of all routes that decide."""

    def __init__(
        self,
        protocols: Sequence[DecisionProtocol],
        service: DecisionService,
        exchange: Exchange,
        bodies: BodyReader,
    ) -> None:
        self._service = service
        self._exchange = exchange
        self._bodies = bodies
        self._table = [
            Route(rule, _pattern(rule), protocol)
            for protocol in protocols
            for rule in protocol.rules
        ]

    def register(self, app: Flask) -> None:
        """Add the routes to a Flask application."""
        for route in self._table:

            def view(route: Route = route, **parts: str) -> Response:
                (answer,) = self.decide([Call(route, parts, from_flask(flask_request))])
                return to_flask(answer)

            # Below these paths other protocols answer OPTIONS themselves.
            options = not route.rule.startswith(("/v1/", "/v2/"))
            app.add_url_rule(
                route.rule, route.rule, view, methods=["POST"], provide_automatic_options=options
            )

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a request and the parts of its path, if it is one of these."""
        if method == "POST":
            for route in self._table:
                if found := route.path.fullmatch(path):
                    return route, found.groupdict()
        return None

    def answer(self, calls: Sequence[Call]) -> list[tuple[Answer, str]]:
        """Answer requests that arrived together; each answer comes with the request's id."""
        started = time.perf_counter()
        refused: dict[int, Answer] = {}
        for index, (_, _, request) in enumerate(calls):
            try:
                self._exchange.admit(request.path, request.headers.get("authorization"))
            except ProblemError as error:
                refused[index] = from_error(request.path, error)
        admitted = [call for index, call in enumerate(calls) if index not in refused]
        decided = iter(self.decide(admitted))
        seconds = time.perf_counter() - started
        new_ids = os.urandom(8 * len(calls)).hex()
        answers: list[tuple[Answer, str]] = []
        routes: dict[tuple[str, int], list[Finished]] = {}
        for index, (route, _, request) in enumerate(calls):
            answer = refused[index] if index in refused else next(decided)
            own_id = request.headers.get("x-request-id")
            if own_id is None or not is_request_id(own_id):
                own_id = new_ids[16 * index : 16 * index + 16]
            answers.append((answer, own_id))
            finished = (request.method, request.path, request.remote, own_id)
            routes.setdefault((route.rule, answer.status), []).append(finished)
        for (rule, status), together in routes.items():
            self._exchange.finish(rule, status, together, seconds)
        return answers

    def decide(self, calls: Sequence[Call]) -> list[Answer]:
        """Decode all, decide together, encode each; one that fails leaves the others alone."""
        for call in calls:
            if len(call.request.body) > LARGE_BYTES:
                with collection.paused():
                    return self._decide(calls)
        return self._decide(calls)

    def _decide(self, calls: Sequence[Call]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        decoded: dict[int, Decoded] = {}
        for index, call in enumerate(calls):
            try:
                decoded[index] = call.route.protocol.decode(call.request, **call.parts)
            except ProblemError as error:
                answers[index] = from_error(call.request.path, error)
            except Exception:
                answers[index] = _failed(call)
        try:
            by_batch: dict[int, Columns] = {}
            results = self._service.decide_many([request for request, _ in decoded.values()])
            for index, result in zip(decoded, results, strict=True):
                if isinstance(result, ProblemError):
                    answers[index] = from_error(calls[index].request.path, result)
                else:
                    columns = by_batch.get(id(result.batch))
                    if columns is None:
                        columns = by_batch[id(result.batch)] = Columns(result.batch)
                    answers[index] = decoded[index][1](result, columns)
        except Exception:
            if len(calls) > 1:
                return [answer for call in calls for answer in self._decide([call])]
            answers[0] = _failed(calls[0])
        for call in calls:
            if call.request.unpacked_bytes:
                self._bodies.release(call.request)
        return [answers[index] for index in range(len(calls))]


def _failed(call: Call) -> Answer:
    logger.exception("%s %s failed", call.request.method, call.request.path)
    return unexpected(call.request.path)


def _pattern(rule: str) -> re.Pattern[str]:
    parts = re.split(r"<(?:(\w+):)?(\w+)>", rule)
    pattern = re.escape(parts[0])
    for converter, name, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        pattern += f"(?P<{name}>{_PARTS[converter or '']})" + re.escape(literal)
    return re.compile(pattern)
