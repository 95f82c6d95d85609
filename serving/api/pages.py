"""The live page and the page of a policy card: static files, which ask the API like any client."""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from flask import Blueprint, Response, request

from serving.errors import NotFoundError

# Nothing from elsewhere and nothing inline. `blob:` is for pictures that need the API key's
# header, which an <img> cannot send: the page fetches them and shows them from its memory.
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class _File(NamedTuple):
    body: bytes
    content_type: str
    etag: str


@cache
def _files() -> dict[str, _File]:
    """The folder `web`, read once: a request's path is only ever looked up in this dict."""
    files = {}
    for path in (Path(__file__).parent.parent / "web").iterdir():
        content_type = _CONTENT_TYPES.get(path.suffix)
        if content_type is not None:
            body = path.read_bytes()
            files[path.name] = _File(body, content_type, hashlib.sha256(body).hexdigest())
    return files


def page_blueprint() -> Blueprint:
    """`GET /` and `GET /web/<file>`."""
    blueprint = Blueprint("page", __name__)
    # The pages have addresses of their own, which their relative links count from.
    parts = {name: file for name, file in _files().items() if not name.endswith(".html")}

    @blueprint.get("/")
    def page() -> Response:
        return _answer(_files()["index.html"])

    @blueprint.get("/web/<name>")
    def part(name: str) -> Response:
        if name not in parts:
            raise NotFoundError(f"there is no file {name!r} in /web")
        return _answer(parts[name])

    return blueprint


def card_page() -> Response:
    """The page that shows the policy card at its own address, asked for there with `text/html`."""
    response = _answer(_files()["card.html"])
    response.vary.add("Accept")
    return response


def _answer(file: _File) -> Response:
    response = Response(file.body, content_type=file.content_type)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.set_etag(file.etag)
    # Kept, but asked about each time: a page never runs with parts of another release.
    response.cache_control.no_cache = True
    response.make_conditional(request)
    return response
