"""What happens to every request besides its answer: keys, request id, counts, log, headers."""

import logging
import re
import secrets
import time

from flask import Flask, Response, g, request

from serving.api.keys import Keys
from serving.api.pages import card_page
from serving.errors import UnauthorizedError
from serving.metrics import Metrics
from serving.settings import Settings

logger = logging.getLogger("serving.requests")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Health is for who looks after the process. The pages are files without any data: they ask
# the API, with the key that is entered there.
_PUBLIC = re.compile(r"/health/(live|ready)|/v2/health/(live|ready)|/|/web/[^/]+")


def register_hooks(app: Flask, settings: Settings, metrics: Metrics, keys: Keys) -> None:
    """Add what every request of the application goes through."""

    @app.before_request
    def begin() -> Response | None:
        g.started = time.perf_counter()
        g.request_id = request_id(request.headers.get("X-Request-ID"))
        if not keys or _PUBLIC.fullmatch(request.path):
            return None
        try:
            keys.require(request.headers.get("Authorization"))
        except UnauthorizedError:
            if asks_for_page():
                # The same for every name: it tells nobody which models there are.
                return card_page()
            raise
        return None

    @app.after_request
    def end(response: Response) -> Response:
        route = "other" if request.url_rule is None else request.url_rule.rule
        seconds = time.perf_counter() - g.started
        metrics.answered(route, response.status_code, seconds)
        headers = response.headers
        headers["X-Request-ID"] = g.request_id
        headers.setdefault("X-Content-Type-Options", "nosniff")
        headers.setdefault("Cache-Control", "no-store")
        if response.mimetype == "text/html":  # the framework's own, such as of OPTIONS
            headers.setdefault(
                "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
            )
        if settings.log_requests == "all" or response.status_code >= 400:
            logger.info(
                "%s %s %d in %.1f ms, request %s",
                request.method,
                request.path,
                response.status_code,
                1000 * seconds,
                g.request_id,
                extra={
                    "method": request.method,
                    "path": request.path,
                    "status": response.status_code,
                    "milliseconds": round(1000 * seconds, 3),
                    "remote": request.remote_addr,
                    "request_id": g.request_id,
                },
            )
        return response


def request_id(given: str | None) -> str:
    """The client's own id where it is a plain word, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(8)


def asks_for_page() -> bool:
    """Whether a browser asks for a page that is a file: `GET /models/<name>`."""
    return request.endpoint == "models.model" and (
        request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"
    )
