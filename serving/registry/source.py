"""Where `pull` finds versions: an object store, which may be down, slow or wrong.

It is read with obstore, from the extra `pull`, which is imported only here.
"""

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from serving.policy.artefact import ArtefactError, version_number
from serving.registry.store import require_size
from serving.settings import MODEL_NAME

if TYPE_CHECKING:
    from obstore import ObjectMeta

MAX_OBJECTS = 100_000  # in a source
MAX_PATH = 1024  # characters, as many as S3 allows
READ_SECONDS = 10.0  # the longest time without a byte
MAX_SECONDS = 600.0  # for listing all objects, and for fetching the files of a version
_RETRIES = 2
_PIECE_BYTES = 1024 * 1024

T = TypeVar("T")
Listed = list["ObjectMeta"]  # the objects of a version, sorted by their paths in it
ListedVersions = dict[tuple[str, int], Listed]  # by name and number


class SourceError(Exception):
    """The source cannot be read now; the message says why."""


class Source:
    """A folder of an object store, laid out as the models folder is.

    obstore's calls delay signals, and its coroutines abort some processes that exit after using
    them (issue 40 of pyo3-async-runtimes). So calls are made on another thread.
    """

    def __init__(self, url: str) -> None:
        """Configure access, without connecting.

        Raises:
            SourceError: obstore is not installed, or does not support this URL.
        """
        try:
            from obstore.exceptions import BaseError
            from obstore.store import HTTPStore, from_url
        except ImportError as error:
            raise SourceError("obstore is not installed: install actor-critic[pull]") from error
        try:
            self._store = from_url(
                url,
                client_options={
                    "allow_http": True,  # if the operator gives such a URL
                    "read_timeout": timedelta(seconds=READ_SECONDS),
                    "timeout": timedelta(seconds=MAX_SECONDS),
                },
                retry_config={
                    "max_retries": _RETRIES,
                    "retry_timeout": timedelta(seconds=(1 + _RETRIES) * READ_SECONDS),
                },
            )
        except (BaseError, ValueError) as error:
            raise SourceError(f"{url}: {_reason(error)}") from error
        # An HTTPStore lists paths relative to its host, but reads paths relative to its URL.
        is_http = isinstance(self._store, HTTPStore)
        self._listed_prefix = f"{unquote(urlsplit(url).path).strip('/')}/" if is_http else ""

    def versions(self) -> ListedVersions:
        """The listed objects of each version; all other objects are ignored.

        Raises:
            SourceError: the source cannot be listed, or has no versions.
        """
        versions = _on_a_thread(self._list)
        if not versions:
            raise SourceError("there is no <name>/<version>/ with files")
        return versions

    def fetch(self, version: str, sizes: dict[str, int], folder: Path) -> None:
        """Write the files of a version, given as `<name>/<number>`, to a new folder.

        Raises:
            ArtefactError: a file does not have the listed size.
            SourceError: a file cannot be read.
            OSError: a file cannot be written.
        """
        _on_a_thread(lambda: self._fetch(version, sizes, folder))

    def _list(self) -> ListedVersions:
        import obstore

        deadline, count = time.monotonic() + MAX_SECONDS, 0
        versions: ListedVersions = {}
        for objects in obstore.list(self._store):
            _require_time(deadline)
            count += len(objects)
            if count > MAX_OBJECTS:
                raise SourceError(f"it lists more than {MAX_OBJECTS} objects, the most allowed")
            for one in objects:
                relative = one["path"].removeprefix(self._listed_prefix)
                name, version, path = [*relative.split("/", 2), "", ""][:3]
                number = version_number(version)
                if path and number is not None and re.fullmatch(MODEL_NAME.pattern, name):
                    one["path"] = path
                    versions.setdefault((name, number), []).append(one)
        for listed in versions.values():
            listed.sort(key=lambda one: one["path"])
        return versions

    def _fetch(self, version: str, sizes: dict[str, int], folder: Path) -> None:
        import obstore

        deadline = time.monotonic() + MAX_SECONDS
        for path, size in sizes.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            missing = size
            with (folder / path).open("xb") as file:
                for piece in obstore.get(self._store, f"{version}/{path}").stream(_PIECE_BYTES):
                    _require_time(deadline)
                    missing -= len(piece)
                    if missing < 0:
                        break
                    file.write(piece)
            if missing:
                raise ArtefactError(f"{path} does not have the {size} bytes that the source lists")


def listed_sizes(listed: Listed) -> dict[str, int]:
    """The sizes of a version's files, by path.

    Raises:
        ArtefactError: a path is listed twice or is unsafe, or the version is too large.
    """
    sizes = {one["path"]: one["size"] for one in listed}
    if len(sizes) < len(listed):
        raise ArtefactError("the source lists a file twice")
    for path in sizes:
        parts = path.split("/")
        if len(path) > MAX_PATH or not all(re.fullmatch(MODEL_NAME.pattern, one) for one in parts):
            raise ArtefactError(f"the source lists an unsafe path {path[:MAX_PATH]!r}")
    # Some tools upload an empty object for each folder.
    folders = {str(parent) for path in sizes for parent in PurePosixPath(path).parents}
    sizes = {path: size for path, size in sizes.items() if path not in folders}
    require_size(len(sizes), sum(sizes.values()))
    return sizes


def _on_a_thread(call: Callable[[], T]) -> T:
    """Wait for a call until it returns or a signal arrives; obstore errors become `SourceError`."""
    from obstore.exceptions import BaseError

    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result()
    except (BaseError, FileNotFoundError, ValueError) as error:
        raise SourceError(_reason(error)) from error


def _require_time(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise SourceError(f"it takes longer than {MAX_SECONDS:g} seconds")


def _reason(error: Exception) -> str:
    """Shorten an error to one line that is the same each time: no durations, no request ids."""
    text = str(error).partition("\n\nDebug source:")[0]
    text = re.sub(r"^.*Error performing ([A-Z]+ [^\s?]+).*? - ", r"\1: ", text)
    head, *body = re.split(r": [<{]", text, maxsplit=1)
    code = re.search(r"<Code>(\w+)</Code>", "".join(body))
    line = f"{head}, {code[1]}" if code else head
    return " ".join(line.split())[:300]
