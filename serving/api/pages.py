"""The pages: the same files for everybody, which ask the API for their data like any client."""

from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, render_template, request

from serving.errors import NotFoundError

# Nothing from elsewhere and nothing inline. `blob:` is for pictures that need the API key's
# header, which an <img> cannot send: the page fetches them and shows them from its memory.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_WEB = Path(__file__).parent.parent / "web"

_CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@cache
def _files() -> dict[str, bytes]:
    """The folder `web`, read once: a request's path is only ever looked up in this dict."""
    paths = _WEB.iterdir()
    return {path.name: path.read_bytes() for path in paths if path.suffix in _CONTENT_TYPES}


def page_blueprint() -> Blueprint:
    """`GET /` and `GET /web/<file>`."""
    blueprint = Blueprint("page", __name__, template_folder=str(_WEB))

    @blueprint.get("/")
    def page() -> Response:
        return _page("index.html", root="", page="live")

    @blueprint.get("/web/<name>")
    def part(name: str) -> Response:
        if name not in _files():
            raise NotFoundError(f"there is no file {name!r} in /web")
        return _answer(_files()[name], _CONTENT_TYPES[Path(name).suffix])

    return blueprint


def asks_for_page() -> bool:
    """Whether the request prefers a page to JSON; one that accepts anything gets JSON."""
    kinds = ["application/json", "text/html"]
    return request.accept_mimetypes.best_match(kinds) == "text/html"


def page_without_key(endpoint: str | None) -> Response | None:
    """The page that asks a browser's user for the key, if this route has such a page.

    It is the same for every name, so it does not reveal which models there are.
    """
    if endpoint not in ("models.model", "docs.docs") or not asks_for_page():
        return None
    if endpoint == "models.model":
        return card_page()
    response = docs_page({})
    response.vary.add("Accept")
    return response


def docs_page(content: dict[str, Any]) -> Response:
    """The page `/docs` with a description's `content`; without content, it asks for a key."""
    return _page("docs.html", root="", page="docs", **content)


def card_page(status: HTTPStatus = HTTPStatus.OK) -> Response:
    """The page of a policy card: the answer of `GET /models/<name>` to a browser.

    Its script fetches the card, or says that there is none; the status is for other programs.
    """
    response = _page("card.html", status, root="../", page="card")
    response.vary.add("Accept")
    return response


def _page(
    template: str, status: HTTPStatus = HTTPStatus.OK, *, root: str, page: str, **content: Any
) -> Response:
    """A page; `root` is the relative URL of the service's root, for its links."""
    html = render_template(template, root=root, page=page, **content)
    return _answer(html.encode(), "text/html; charset=utf-8", status)


def _answer(content: bytes, content_type: str, status: HTTPStatus = HTTPStatus.OK) -> Response:
    response = Response(content, status, content_type=content_type)
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    # Browsers keep it and revalidate it each time: a page never mixes files of two releases.
    response.cache_control.no_cache = True
    response.add_etag()
    if status == HTTPStatus.OK:  # an error must not become 304
        response.make_conditional(request)
    return response
