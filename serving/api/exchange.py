"""What is done for every request, with Flask or without: keys, id, counts, log and headers."""

import logging
import os
import re
import time
from http import HTTPStatus
from typing import NamedTuple, Protocol

from flask import Flask, Response, g, request

from serving.api.forwarding import client_address, traceparent
from serving.api.keys import Key, Keys
from serving.api.messages import Answer, is_plain_word
from serving.api.pages import page_without_key
from serving.errors import Headers, InsufficientRightError, MissingKeyError, NotReadyError
from serving.metrics import Metrics
from serving.settings import Settings

logger = logging.getLogger("serving.requests")

_READINESS = frozenset({"/health/ready", "/v2/health/ready"})
HEALTH = _READINESS | {"/health/live", "/v2/health/live"}
# Like health, these need no key. The pages are files without any data: they fetch it from the API
# with the key that the user enters.
_PUBLIC = re.compile(r"/|/web/[^/]+")
# Requests that change what is served.
_OPERATED = re.compile(r"/v2/repository/models/[^/]+/(un)?load")

# Headers that pages of another origin may send, and may read (Fetch standard, CORS protocol).
_SENT = "authorization, content-encoding, content-type, inference-header-content-length"
_READ = "inference-header-content-length, retry-after, traceparent, x-request-id"
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": f"{_SENT}, traceparent, x-episode-id, x-request-id",
    "Access-Control-Max-Age": "600",
}


class HeaderFields(Protocol):
    """The headers of a request; Flask finds names in any case, the worker only in lower case."""

    def get(self, name: str, /) -> str | None:
        """The value of a header."""


class Finished(NamedTuple):
    """A request that was answered."""

    method: str
    path: str
    remote: str  # address of the client
    request_id: str
    traceparent: str | None = None  # of the answer

    def add_trace(self, answer: Answer) -> Answer:
        """The answer with a `traceparent`, if its request belongs to a trace."""
        if self.traceparent is None:
            return answer
        return answer._replace(headers=(*answer.headers, ("traceparent", self.traceparent)))


class Exchange:
    """Admits requests, and counts and logs their answers.

    Attributes:
        headers: of every answer.
        is_ending: whether readiness fails, so that load balancers send no more requests; those
            that still come are answered.
    """

    def __init__(self, settings: Settings, metrics: Metrics, keys: Keys) -> None:
        self.is_ending = False
        self._logs_all = settings.log_requests == "all"
        self._metrics = metrics
        self._keys = keys
        self._trusted_proxies = settings.trusted_proxies
        self._allows_origin = settings.cors_origin is not None
        self.headers: Headers = (
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
        )
        if settings.cors_origin is not None:
            self.headers += (
                ("Access-Control-Allow-Origin", settings.cors_origin),
                ("Access-Control-Expose-Headers", _READ),
            )

    def client(self, peer: str, forwarded_for: str | None) -> str:
        """The address of the client whose request came from `peer`."""
        if not self._trusted_proxies:
            return peer
        return client_address(peer, forwarded_for, self._trusted_proxies)

    def admit(self, path: str, authorization: str | None) -> Key | None:
        """Accept a request that needs no key, or has a valid one that may do this.

        Returns:
            The key; None if none is needed.

        Raises:
            InsufficientRightError: the key may not do this.
            UnauthorizedError: a key is needed, and there is none or an invalid one.
        """
        if not self._keys or path in HEALTH or _PUBLIC.fullmatch(path):
            return None
        return self.require_key(authorization, operates=bool(_OPERATED.fullmatch(path)))

    def require_key(self, authorization: str | None, *, operates: bool) -> Key | None:
        """The key of a request that needs one, if the service has keys; see `admit`.

        `operates` says whether the request changes what is served.
        """
        if not self._keys:
            return None
        key = self._keys.find(authorization)
        if operates and not key.operates:
            raise InsufficientRightError(f"the API key {key.name} may not change what is served")
        return key

    def finished(
        self, method: str, path: str, headers: HeaderFields, peer: str, own_id: str
    ) -> Finished:
        """What the log says about a request that came from `peer` and was answered."""
        remote = self.client(peer, headers.get("x-forwarded-for"))
        return Finished(method, path, remote, own_id, traceparent(headers.get("traceparent")))

    def finish(self, route: str, status: int, requests: list[Finished], seconds: float) -> None:
        """Count and log requests that were answered together, with the same route and status."""
        self._metrics.answered(route, status, seconds, len(requests))
        if status < 400 and not self._logs_all:
            return
        for finished in requests:
            fields = finished._asdict() | {
                "status": status,
                "milliseconds": round(1000 * seconds, 3),
            }
            if finished.traceparent is None:
                del fields["traceparent"]
            logger.info(
                "%(method)s %(path)s %(status)d in %(milliseconds).1f ms, request %(request_id)s",
                fields,
                extra=fields,
            )

    def register(self, app: Flask) -> None:
        """Do this for every request of a Flask application."""

        @app.before_request
        def begin() -> Response | None:
            g.started = time.perf_counter()
            g.request_id = request_id(request.headers.get("X-Request-ID"))
            is_preflight = request.method == "OPTIONS" and (
                "Access-Control-Request-Method" in request.headers
            )
            if self._allows_origin and is_preflight:
                return Response(status=HTTPStatus.NO_CONTENT, headers=_PREFLIGHT)
            try:
                g.key = self.admit(request.path, request.headers.get("Authorization"))
            except MissingKeyError:
                if (page := page_without_key(request.endpoint)) is not None:
                    return page
                raise
            if self.is_ending and request.path in _READINESS:
                raise NotReadyError("the service is shutting down")
            return None

        @app.after_request
        def end(response: Response) -> Response:
            route = "other" if request.url_rule is None else request.url_rule.rule
            finished = self.finished(
                request.method,
                request.path,
                request.headers,
                request.remote_addr or "",
                g.request_id,
            )
            seconds = time.perf_counter() - g.started
            self.finish(route, response.status_code, [finished], seconds)
            response.headers["X-Request-ID"] = g.request_id
            if finished.traceparent is not None:
                response.headers["traceparent"] = finished.traceparent
            response.headers.pop("Date", None)  # the server sends its own
            for name, value in self.headers:
                response.headers.setdefault(name, value)
            if response.mimetype == "text/html":  # Flask's own, such as its answer to OPTIONS
                response.headers.setdefault(
                    "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
                )
            return response


def request_id(given: str | None) -> str:
    """The client's own id if it is a plain word, which can be logged; otherwise a new one."""
    return given if given is not None and is_plain_word(given) else os.urandom(8).hex()
