"""The live page and the page of a policy card: static files, which ask the API like any client."""

from functools import cache
from pathlib import Path

from flask import Blueprint, Response, request

from serving.errors import NotFoundError

# Nothing from elsewhere and nothing inline. `blob:` is for pictures that need the API key's
# header, which an <img> cannot send: the page fetches them and shows them from its memory.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@cache
def _files() -> dict[str, bytes]:
    """The folder `web`, read once: a request's path is only ever looked up in this dict."""
    paths = (Path(__file__).parent.parent / "web").iterdir()
    return {path.name: path.read_bytes() for path in paths if path.suffix in _CONTENT_TYPES}


def page_blueprint() -> Blueprint:
    """`GET /` and `GET /web/<file>`."""
    blueprint = Blueprint("page", __name__)

    @blueprint.get("/")
    def page() -> Response:
        return _answer("index.html")

    @blueprint.get("/web/<name>")
    def part(name: str) -> Response:
        # The pages have addresses of their own, which their relative links count from.
        if name not in _files() or name.endswith(".html"):
            raise NotFoundError(f"there is no file {name!r} in /web")
        return _answer(name)

    return blueprint


def asks_for_page() -> bool:
    """Whether the request prefers a page to JSON; JSON is for who takes anything."""
    kinds = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(kinds) == "text/html"


def card_page() -> Response:
    """The page that shows the policy card at its own address, asked for there with `text/html`."""
    response = _answer("card.html")
    response.vary.add("Accept")
    return response


def _answer(name: str) -> Response:
    response = Response(_files()[name], content_type=_CONTENT_TYPES[Path(name).suffix])
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    # Kept, but asked about each time: a page never runs with parts of another release.
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response
