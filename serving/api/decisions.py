"""The routes that decide: a table of protocols, and one code path for all of them.

Flask can answer these routes like all others. The worker instead calls `answer` with all requests
that are ready: the answers are the same, but faster without Flask.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from flask import Flask, Response, g
from flask import request as flask_request

from serving.api.batch import Batches, Decoding
from serving.api.body import LARGE_BYTES, BodyReader
from serving.api.exchange import Exchange, Finished
from serving.api.messages import Answer, Request, from_flask, to_flask
from serving.api.problems import from_error
from serving.errors import ProblemError

# What may match a part of a path, by the name of its converter; "" is Flask's default.
PARTS = {"": "[^/]+", "tfname": "[^/:]+", "tfnumber": "[0-9]+"}

Decoded = Decoding[Answer]
# Decodes a `Request`; the parts of its path are keyword arguments, named as in the rule. Raises
# `ProblemError` if the request is invalid, or asks for a policy that is not served.
Decode = Callable[..., Decoded]


class Route(NamedTuple):
    """One route of the table."""

    rule: str  # as Flask writes it
    path: re.Pattern[str]
    decode: Decode


class Call(NamedTuple):
    """A request and its route."""

    route: Route
    parts: dict[str, str]
    request: Request
    id: str  # of the request

    @property
    def method(self) -> str:
        """The request's method."""
        return self.request.method

    @property
    def path(self) -> str:
        """The request's path."""
        return self.request.path


class DecisionRoutes:
    """Answers requests of all routes that decide."""

    def __init__(
        self,
        table: Mapping[str, Decode],
        batches: Batches,
        exchange: Exchange,
        bodies: BodyReader,
    ) -> None:
        """`table` has, for each rule, the function that decodes its requests."""
        self._batches = batches
        self._exchange = exchange
        self._bodies = bodies
        self._table = [Route(rule, _pattern(rule), decode) for rule, decode in table.items()]

    def register(self, app: Flask) -> None:
        """Add the routes to a Flask application."""
        for route in self._table:

            def view(route: Route = route, **parts: str) -> Response:
                (answer,) = self.decide(
                    [Call(route, parts, from_flask(flask_request), g.request_id)]
                )
                return to_flask(answer)

            # Flask answers OPTIONS, except below these paths, where the catch-all routes do.
            options = False if route.rule.startswith(("/v1/", "/v2/")) else None
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

    def answer(self, calls: Sequence[Call]) -> list[Answer]:
        """Answer requests that arrived together."""
        started = time.perf_counter()
        answers = self.decide(calls)
        seconds = time.perf_counter() - started
        routes: dict[tuple[str, int], list[Finished]] = {}
        for index, (route, _, request, own_id) in enumerate(calls):
            finished = self._exchange.finished(
                request.method, request.path, request.headers, request.remote, own_id
            )
            answers[index] = finished.add_trace(answers[index])
            routes.setdefault((route.rule, answers[index].status), []).append(finished)
        for (rule, status), together in routes.items():
            self._exchange.finish(rule, status, together, seconds)
        return answers

    def decide(self, calls: Sequence[Call]) -> list[Answer]:
        """Decode all, decide together, encode each; a failed request does not affect the others."""
        are_large = any(len(call.request.body) > LARGE_BYTES for call in calls)
        decided = self._batches.decide(calls, self._decode, are_large=are_large)
        for call in calls:
            if call.request.unpacked_bytes:
                self._bodies.release(call.request)
        return [
            from_error(call.path, one) if isinstance(one, ProblemError) else one
            for call, one in zip(calls, decided, strict=True)
        ]

    def _decode(self, call: Call) -> Decoded:
        # For the worker; if Flask answers, `before_request` has already checked the key.
        route, parts, request, _ = call
        self._exchange.admit(request.path, request.headers.get("authorization"))
        return route.decode(request, **parts)


def _pattern(rule: str) -> re.Pattern[str]:
    parts = re.split(r"<(?:(\w+):)?(\w+)>", rule)
    pattern = re.escape(parts[0])
    for converter, name, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        pattern += f"(?P<{name}>{PARTS[converter or '']})" + re.escape(literal)
    return re.compile(pattern)
