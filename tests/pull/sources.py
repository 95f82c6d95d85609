"""Sources to pull from: a real S3 server, `rclone serve s3`, and one that says what is not so."""

import logging
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from serving.registry.pull import Puller
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.artefacts import files
from tests.conftest import ENVIRONMENT, started, wait_until

RCLONE = Path(sys.executable).with_name("rclone")
KEY, SECRET = "testing-key", "testing-secret"
SOURCE = "s3://bucket/some/models"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Rclone:
    """A folder, served by a real program: its folders are the buckets."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "bucket" / "some" / "models"
        self.models.mkdir(parents=True)
        self.port = free_port()
        self._folder = folder

    def start(self, kind: str = "s3") -> None:
        options = {"s3": ("--auth-key", f"{KEY},{SECRET}"), "webdav": ()}[kind]
        self._process = subprocess.Popen(
            [
                *(str(RCLONE), "serve", kind, "--config", "", "--addr", f"127.0.0.1:{self.port}"),
                *("--dir-cache-time", "0", *options, str(self._folder)),
            ],
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: is_open(self.port))

    def stop(self) -> None:
        self._process.kill()  # it would wait for connections that are kept open
        self._process.wait()


def point_at(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process, and the programs that it starts, use the server at a port."""
    for name, value in {
        "AWS_ENDPOINT": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setitem(ENVIRONMENT, name, value)


class S3(ThreadingHTTPServer):
    """Just enough of S3 for one bucket of which each key, size and answer is made up."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.listed: list[tuple[str, int]] = []  # below some/models/
        self.content: dict[str, bytes] = {}
        self.before_answer: Callable[[str], object] = lambda _: None
        self.pieces: Callable[[bytes], Iterator[bytes]] = lambda content: iter([content])

    def add(self, name: str, model_dir: Path) -> None:
        for path in files(model_dir):
            content = (model_dir / path).read_bytes()
            self.listed.append((f"{name}/{path}", len(content)))
            self.content[f"{name}/{path}"] = content


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        prefix = "/bucket/some/models/"
        key = unquote(url.path).removeprefix(prefix) if url.path.startswith(prefix) else ""
        content = self.server.content.get(key, b"abc") if key else self._listing()
        self.server.before_answer(key)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        try:
            for piece in self.server.pieces(content):
                self.wfile.write(piece)
                self.wfile.flush()
        except OSError:  # the client has gone
            self.close_connection = True

    def _listing(self) -> bytes:
        listed = "".join(
            f"<Contents><Key>{key if key.startswith('/') else f'some/models/{key}'}</Key>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<Size>{size}</Size></Contents>"
            for key, size in self.server.listed
        )
        end = "<IsTruncated>false</IsTruncated></ListBucketResult>"
        return f"<ListBucketResult>{listed}{end}".encode()

    def log_message(self, *_: object) -> None:
        pass


def found(models: Path) -> list[str]:
    """The versions that are there, and anything else that a service would look at."""
    return sorted(
        path.relative_to(models).as_posix()
        for pattern in ("*", "*/*")
        for path in models.glob(pattern)
        if not path.relative_to(models).parts[0].startswith(".") and path.parent != models
    )


def left_over(models: Path) -> list[str]:
    return files(models / ".pulling")


class Looks:
    """Looks of one process, and what each reported and logged."""

    def __init__(self, models: Path, trials: Trials, caplog: pytest.LogCaptureFixture) -> None:
        self._puller = Puller(SOURCE, Settings(models=models), trials)
        self._log = caplog

    def __call__(self) -> tuple[list[str], list[str]]:
        self._log.clear()
        reported: list[str] = []
        self._puller.look(reported.append)
        logged = [one.getMessage() for one in self._log.records if one.levelno >= logging.ERROR]
        return reported, logged


@contextmanager
def running_pull(models: Path, log: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = (sys.executable, "-m", "serving", "pull", "--source", SOURCE)
    with started(log, *command, "--models", str(models), *options) as process:
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """The exit status and the standard output."""
    process.send_signal(how)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output
