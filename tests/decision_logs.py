"""Services that record, and logs to read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import urllib3

from serving.record.lines import Line
from tests.conftest import Service, running_service, wait_until

JSON = {"Content-Type": "application/json"}


@contextmanager
def recording_service(
    models: Path, folder: Path, *options: str, workers: int = 2
) -> Iterator[Service]:
    """A service whose workers are ready, which records in the folder `record` of a folder."""
    log = folder / "record"
    log.mkdir()
    log.chmod(0o777)  # for the ordinary user that it runs as
    how = ("--decision-log", str(log), "--workers", str(workers))
    with running_service(models, folder / "log", *how, *options) as running:
        served = "serving cartpole version"
        wait_until(lambda: (folder / "log").read_text().count(served) == workers)
        yield running
    running.process.wait(30)


def post(url: str, body: dict[str, Any], **headers: str) -> Any:
    """The answer to a POST, as JSON; it must be a success."""
    content = msgspec.json.encode(body)
    response = urllib3.request("POST", url, body=content, headers={**JSON, **headers})
    assert response.status < 300, response.data
    return response.json()


def lines_of(path: Path) -> list[Line]:
    """The lines of a file of a log."""
    decoder = msgspec.json.Decoder(Line)
    return [decoder.decode(line) for line in path.read_bytes().splitlines()]


def lines_in(folder: Path) -> list[Line]:
    """The lines of all files of a log, file by file."""
    return [line for path in sorted(folder.iterdir()) for line in lines_of(path)]
