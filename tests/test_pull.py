"""`pull` against a real S3 server, `rclone serve s3`, and a small one that says what is not so."""

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from serving.client import PolicyClient
from serving.registry import pull, source
from serving.registry.pull import Puller
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.artefacts import CARD, edit_card, files, publish, unsolve
from tests.conftest import ENVIRONMENT, ROOT, Trained, run, running_service, wait_until
from tests.faults.mounts import with_mounts
from tests.faults.wire import children
from tests.signatures import Key
from tests.test_monitoring import composes

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


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rclone]:
    """An empty source that can be reached."""
    bucket = Rclone(tmp_path / "buckets")
    point_at(bucket.port, monkeypatch)
    bucket.start()
    yield bucket
    bucket.stop()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty models folder."""
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


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


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with S3() as server:
        point_at(server.server_port, monkeypatch)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


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


@pytest.fixture
def look(models: Path, trials: Trials, caplog: pytest.LogCaptureFixture) -> Looks:
    return Looks(models, trials, caplog)


@contextmanager
def running_pull(models: Path, log: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    with (
        log.open("w") as log_file,
        subprocess.Popen(
            [
                *(sys.executable, "-m", "serving", "pull", "--source", SOURCE),
                *("--models", str(models), *options),
            ],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
    """The exit status and the standard output."""
    process.send_signal(how)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output


def test_a_new_version_is_served_within_a_poll(
    trained: Trained, bucket: Rclone, models: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    options = ("--workers", "1", "--poll-seconds", "0.1")
    with (
        running_pull(models, log, "--every", "0.2") as pulling,
        running_service(models, tmp_path / "service", *options) as service,
    ):
        client = PolicyClient(service.url)
        wait_until(lambda: "there is no <name>/<version>/ with files" in log.read_text())
        shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
        client.wait_until_ready(60)
        publish(trained.model_dir, bucket.models / "cartpole" / "2")
        wait_until(lambda: client.act([[0.0] * 4]).model.version == 2)
        # What goes away at the source stays here.
        shutil.rmtree(bucket.models / "cartpole" / "2")
        time.sleep(0.5)
        assert found(models) == ["cartpole/1", "cartpole/2"]
        assert end(pulling) == (0, "")
    logged = log.read_text()
    assert "pulled cartpole version 2" in logged
    assert logged.count("there is no <name>/<version>/ with files") == 1
    assert "Traceback" not in logged
    for path in files(trained.model_dir):
        copied = models / "cartpole" / "2" / path
        assert copied.read_bytes() == (trained.model_dir / path).read_bytes()


@pytest.mark.parametrize("kind", ["s3", "webdav"])
def test_one_look_pulls_every_version_of_every_model_and_a_second_nothing(
    trained: Trained, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bucket = Rclone(tmp_path / "buckets")
    point_at(bucket.port, monkeypatch)
    for name in ("cartpole/2", "cartpole/10", "an-other.model/1"):
        shutil.copytree(trained.model_dir, bucket.models / name)
    for ignored in ("007", ".writing-3", "a/b"):
        shutil.copytree(trained.model_dir, bucket.models / "cartpole" / ignored)
    (bucket.models / "cartpole" / "serve.json").write_text('{"serve": 2}')
    (bucket.models / "README").write_text("a file")
    url = {"s3": SOURCE, "webdav": f"http://127.0.0.1:{bucket.port}/bucket/some/models"}[kind]
    bucket.start(kind)
    try:
        # The command takes what others read, whatever its umask is.
        first = run("serving", "pull", "--source", url, "--models", str(models), umask=0o077)
        assert first.returncode == 0, first.stderr
        lines = ("an-other.model version 1", "cartpole version 10", "cartpole version 2")
        assert first.stdout.splitlines() == [f"pulled {line}" for line in lines]
        assert first.stderr == ""
        assert found(models) == ["an-other.model/1", "cartpole/10", "cartpole/2"]
        pulled = models / "cartpole" / "10"
        assert files(pulled) == files(trained.model_dir)
        for path in [pulled, *pulled.rglob("*")]:
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644)
        before = pulled.stat()
        monkeypatch.setitem(ENVIRONMENT, "SERVING_SOURCE", url)
        second = run("serving", "pull", "--models", str(models))
        assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
        assert pulled.stat() == before
    finally:
        bucket.stop()


def flip_a_byte(model_dir: Path) -> None:
    with (model_dir / "saved_model.pb").open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def lose_a_file(model_dir: Path) -> None:
    (model_dir / "fingerprint.pb").unlink()


def lose_the_card(model_dir: Path) -> None:
    (model_dir / CARD).unlink()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (flip_a_byte, "saved_model.pb is not the file whose checksum is on the card"),
        (lose_a_file, "fingerprint.pb is missing"),
        (lose_the_card, f"{CARD} is missing"),
        (unsolve, "its card says that it is not solved"),
    ],
)
def test_what_is_refused_is_logged_once_and_tried_again_when_it_changes(
    trained: Trained,
    bucket: Rclone,
    models: Path,
    look: Looks,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], object],
    reason: str,
) -> None:
    shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
    there = publish(trained.model_dir, bucket.models / "cartpole" / "2", change)
    fetched: list[str] = []
    fetch = source.Source.fetch

    def counted(self: source.Source, version: str, *rest: Any) -> None:
        fetched.append(version)
        fetch(self, version, *rest)

    monkeypatch.setattr(source.Source, "fetch", counted)
    trouble = f"cartpole version 2 is not pulled: {reason}"
    assert look() == (["pulled cartpole version 1"], [trouble])
    assert look() == look() == ([], [])
    assert fetched == ["cartpole/2", "cartpole/1"]
    bucket.stop()
    ((), (away,)) = map(tuple, look())
    assert away.startswith("cannot pull from")
    bucket.start()
    assert look() == ([], [])
    assert found(models) == ["cartpole/1"]
    # Nothing is remembered of a version that has gone.
    there.rename(bucket.models / "away")
    assert look() == ([], [])
    (bucket.models / "away").rename(there)
    assert look() == ([], [trouble])
    assert fetched == ["cartpole/2", "cartpole/1", "cartpole/2"]
    shutil.rmtree(there)
    shutil.copytree(trained.model_dir, there)
    assert look() == (["pulled cartpole version 2"], [])
    assert found(models) == ["cartpole/1", "cartpole/2"]
    assert left_over(models) == [".lock"]


def test_a_version_that_is_uploaded_file_by_file_is_pulled_when_it_is_whole(
    trained: Trained, bucket: Rclone, models: Path, look: Looks
) -> None:
    paths = files(trained.model_dir)
    for path in paths:
        target = bucket.models / "cartpole" / "1" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(trained.model_dir / path, target)
        reported, _ = look()
        assert reported == (["pulled cartpole version 1"] if path == paths[-1] else [])
        assert found(models) == (["cartpole/1"] if path == paths[-1] else [])


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([("x/../../../../../escaped", 3)], "invalid path"),
        ([("//x", 3)], "empty path segment"),
        ([(r"a\b", 3)], r"the source lists a file 'a\\b'"),
        ([("a b", 3)], "the source lists a file 'a b'"),
        ([(".hidden", 3)], "the source lists a file '.hidden'"),
        ([("x/" * 600 + "x", 3)], "the source lists a file 'x/x/"),
        ([("x", 3), ("x", 3)], "the source lists a file twice"),
        ([("x", 2)], "x has not the 2 bytes that the source lists"),
        ([("x", 4)], "x has not the 4 bytes that the source lists"),
        ([("x", 0)], "x has not the 0 bytes that the source lists"),
        ([("x", 2**30 + 1)], "it has more than 1000 files or 1073741824 bytes"),
        ([(f"x{n}", 0) for n in range(1001)], "it has more than 1000 files or 1073741824"),
        ([("x", -1)], "invalid list response"),
        ([("x", 3)], f"{CARD} is missing"),
    ],
)
def test_a_source_that_lies_changes_nothing_that_is_served(
    trained: Trained,
    fake: S3,
    tmp_path: Path,
    look: Looks,
    listed: list[tuple[str, int]],
    reason: str,
) -> None:
    fake.add("cartpole/1", trained.model_dir)
    assert look() == (["pulled cartpole version 1"], [])
    before = sorted(tmp_path.rglob("*"))
    fake.listed += [(f"cartpole/2/{key}", size) for key, size in listed]
    reported, (trouble,) = look()
    assert (reported, reason in trouble) == ([], True), trouble
    assert look() == ([], [])
    assert sorted(tmp_path.rglob("*")) == before


def test_an_absolute_key_and_other_names_are_ignored(
    trained: Trained, fake: S3, models: Path, look: Looks
) -> None:
    fake.add("cartpole/1", trained.model_dir)
    for key in ("/etc/passwd", "-/-/-/x", "cart pole/4/x", ".x/5/x", "cartpole/06/x", "7/x"):
        fake.listed.append((key, 3))
    # Some tools make an object for each folder.
    fake.listed += [("cartpole/", 0), ("cartpole/1/", 0), ("cartpole/1/variables/", 0)]
    assert look() == (["pulled cartpole version 1"], [])
    assert found(models) == ["cartpole/1"]
    # A key outside of the prefix is read below it.
    fake.listed.append(("/etc/3/x", 3))
    assert look() == ([], [f"etc version 3 is not pulled: {CARD} is missing"])


def test_a_file_that_is_longer_than_listed_is_not_read_to_its_end(fake: S3, look: Looks) -> None:
    megabytes = 0

    def count(content: bytes) -> Iterator[bytes]:
        nonlocal megabytes
        for start in range(0, len(content), 2**20):
            yield content[start : start + 2**20]
            megabytes += 1

    fake.listed = [("cartpole/1/x", 3)]
    fake.content = {"cartpole/1/x": bytes(64 * 2**20)}
    fake.pieces = count
    _, (trouble,) = look()
    assert "x has not the 3 bytes that the source lists" in trouble
    assert megabytes < 32


def test_a_listing_without_end_is_not_read_to_its_end(
    fake: S3, look: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_OBJECTS", 1_000)
    fake.listed = [(f"cartpole/{number}/x", 3) for number in range(1_001)]
    _, (trouble,) = look()
    assert "it lists more than 1000 objects" in trouble


def test_a_source_that_is_away_is_logged_once_and_read_when_it_is_back(
    trained: Trained, bucket: Rclone, models: Path, look: Looks
) -> None:
    shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
    bucket.stop()
    reported, (trouble,) = look()
    assert reported == []
    address = f"GET http://127.0.0.1:{bucket.port}/bucket: HTTP error: error sending request"
    assert trouble == f"cannot pull from {SOURCE} into {models}: {address}"
    assert look() == look() == ([], [])
    bucket.start()
    assert look() == (["pulled cartpole version 1"], [])
    bucket.stop()
    assert look() == ([], [trouble])
    bucket.start()


@pytest.mark.usefixtures("bucket")
def test_wrong_credentials_are_said_without_the_credentials(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "AWS_SECRET_ACCESS_KEY", "another-secret")
    finished = run("serving", "pull", "--source", SOURCE, "--models", str(models))
    assert (finished.returncode, finished.stdout) == (1, "")
    assert "403 Forbidden, SignatureDoesNotMatch" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not re.search(f"another-secret|{KEY}|Signature=", finished.stderr)


def test_a_source_that_does_not_answer_is_given_up(
    fake: S3,
    models: Path,
    trials: Trials,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(source, "READ_SECONDS", 0.2)
    look = Looks(models, trials, caplog)
    go_on = threading.Event()
    fake.before_answer = lambda _: go_on.wait(30)
    started = time.monotonic()
    _, (trouble,) = look()
    assert time.monotonic() - started < 5
    assert "HTTP error" in trouble
    go_on.set()


def test_a_version_that_arrives_too_slowly_is_given_up_and_tried_again(
    trained: Trained, fake: S3, look: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_SECONDS", 0.5)
    fake.add("cartpole/1", trained.model_dir)
    fake.before_answer = lambda key: time.sleep(0.2 if key else 0)
    trouble = "cartpole version 1 is not pulled: it takes longer than 0.5 seconds"
    assert look() == ([], [trouble])
    fake.before_answer = lambda _: None
    assert look() == (["pulled cartpole version 1"], [])


@pytest.mark.parametrize(
    ("how", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_it_amid_a_file_and_the_next_run_cleans_up(
    trained: Trained,
    fake: S3,
    models: Path,
    tmp_path: Path,
    how: signal.Signals,
    status: int,
) -> None:
    go_on = threading.Event()

    def stall(content: bytes) -> Iterator[bytes]:
        yield content[:10]
        if not content.startswith(b"<List"):
            go_on.wait(30)
        yield content[10:]

    fake.add("cartpole/1", trained.model_dir)
    fake.pieces = stall
    with running_pull(models, tmp_path / "log", "--every", "0.2") as pulling:
        wait_until(lambda: (models / ".pulling" / "cartpole" / "1" / "assets.extra").exists())
        started = time.monotonic()
        assert end(pulling, how) == (status, "")
        assert time.monotonic() - started < 3
    go_on.set()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert found(models) == []
    assert (models / ".pulling" / "cartpole" / "1").exists() == (how == signal.SIGKILL)
    fake.listed = [("another/1/x", 3)]
    fake.pieces = lambda content: iter([content])
    finished = run("serving", "pull", "--source", SOURCE, "--models", str(models))
    assert finished.returncode == 1
    assert left_over(models) == [".lock"]


def test_a_single_look_that_is_terminated_is_no_success(
    fake: S3, models: Path, tmp_path: Path
) -> None:
    asked = threading.Event()
    go_on = threading.Event()

    def hang(_: str) -> None:
        asked.set()
        go_on.wait(30)

    fake.before_answer = hang
    with running_pull(models, tmp_path / "log") as pulling:
        assert asked.wait(30)
        assert end(pulling) == (143, "")
    go_on.set()


def test_two_processes_take_turns(trained: Trained, fake: S3, models: Path, tmp_path: Path) -> None:
    go_on = threading.Event()

    def stall_at_the_first_file(key: str) -> None:
        if key:
            go_on.wait(30)

    fake.add("cartpole/1", trained.model_dir)
    fake.before_answer = stall_at_the_first_file
    fetched = models / ".pulling" / "cartpole" / "1" / "assets.extra"
    with running_pull(models, tmp_path / "first") as first:
        wait_until(fetched.exists)
        with running_pull(models, tmp_path / "second") as second:
            time.sleep(1)
            assert fetched.exists()
            assert second.poll() is None
            go_on.set()
            assert first.communicate(timeout=30)[0] == "pulled cartpole version 1\n"
            assert second.communicate(timeout=30)[0] == ""
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_version_that_is_there_is_never_changed(
    trained: Trained, bucket: Rclone, models: Path, look: Looks
) -> None:
    def another(model_dir: Path) -> None:
        edit_card(model_dir, lambda card: card.update(created="another day"))

    for version in ("1", "2"):
        shutil.copytree(trained.model_dir, bucket.models / "cartpole" / version)
    (models / "cartpole").mkdir()
    publish(trained.model_dir, models / "cartpole" / "1", another)
    (models / "cartpole" / "2").mkdir()  # someone is about to copy files to it
    before = {path: path.stat() for path in models.rglob("*")}
    differs = "differs from the source's, and is left as it is"
    expected = [f"cartpole version {version} {differs}" for version in (1, 2)]
    assert look() == ([], expected)
    assert look() == ([], [])
    assert {path: path.stat() for path in before} == before
    shutil.rmtree(models / "cartpole" / "1")
    assert look() == (["pulled cartpole version 1"], [])


def test_trouble_of_this_machine_is_no_fault_of_the_version(
    trained: Trained, bucket: Rclone, look: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: Any) -> None:
        raise OSError("no process can be started; is there a limit of processes?")

    shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
    with monkeypatch.context() as patch:
        patch.setattr(Trials, "run", no_process)
        _, (trouble,) = look()
        assert "no process can be started" in trouble
    assert look() == (["pulled cartpole version 1"], [])


def test_with_trusted_keys_only_what_they_signed_is_pulled(
    trained: Trained, signed: Path, key: Key, bucket: Rclone, models: Path
) -> None:
    shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "2")
    shutil.copytree(signed, bucket.models / "cartpole" / "1")
    options = ("--source", SOURCE, "--models", str(models), "--trusted-keys", str(key.trusted))
    finished = run("serving", "pull", *options)
    assert (finished.returncode, finished.stdout) == (1, "pulled cartpole version 1\n")
    assert "cartpole version 2 is not pulled: it is not signed" in finished.stderr
    assert found(models) == ["cartpole/1"]


def test_it_ends_when_nothing_can_be_examined_any_more(
    trained: Trained, bucket: Rclone, models: Path, tmp_path: Path
) -> None:
    with running_pull(models, tmp_path / "log", "--every", "0.2") as pulling:
        wait_until(lambda: "there is no <name>" in (tmp_path / "log").read_text())
        (trials,) = children(pulling.pid)
        os.kill(trials, signal.SIGKILL)
        shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
        assert pulling.wait(30) == 1
    logged = (tmp_path / "log").read_text()
    assert "Error: the process that tries versions is gone" in logged
    assert "Traceback" not in logged
    assert found(models) == []


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        ('mount -t tmpfs -o size=64k none "$1"', "No space left on device"),
        ('mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"', "Read-only file system"),
    ],
)
def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    trained: Trained, bucket: Rclone, models: Path, mount: str, reason: str
) -> None:
    shutil.copytree(trained.model_dir, bucket.models / "cartpole" / "1")
    finished = subprocess.run(
        [
            *with_mounts(mount, models),
            *(sys.executable, "-m", "serving", "pull", "--source", SOURCE, "--models", models),
        ],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.count("\n") == 1
    assert reason in finished.stderr


def test_a_version_is_synced_to_disk_before_it_is_renamed(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the fsync, a power failure after the rename can leave empty files.
    folder = shutil.copytree(trained.model_dir, tmp_path / ".pulling" / "cartpole" / "1")
    calls: list[str] = []
    rename = Path.rename

    def fsync(descriptor: int) -> None:
        calls.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    def noted(self: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(self, target)

    expected = {str(folder), *map(str, folder.rglob("*"))}
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", noted)
    pull._publish(folder, tmp_path / "cartpole" / "1")
    at = calls.index("rename")
    assert set(calls[:at]) == expected
    assert set(calls[at + 1 :]) == {str(tmp_path / "cartpole"), str(tmp_path)}


def test_without_obstore_it_says_what_to_install(models: Path) -> None:
    code = (
        "import sys; sys.modules['obstore'] = None; from serving.cli import main; "
        f"sys.argv[1:] = ['pull', '--source', {SOURCE!r}, '--models', {str(models)!r}]; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (finished.returncode, finished.stdout) == (2, "")
    expected = "Error: obstore is not installed: pip install -r requirements/pull.txt\n"
    assert finished.stderr == expected


def test_the_compose_profile_adds_pull_with_the_limits_of_what_writes_the_models() -> None:
    if ["docker", "compose"] not in composes():
        if os.environ.get("CI") == "true":
            pytest.fail("no docker compose here")
        pytest.skip("no docker compose here")
    shown = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        env=ENVIRONMENT | {"SERVING_SOURCE": SOURCE},
        capture_output=True,
        text=True,
        check=True,
    )
    services = json.loads(shown.stdout)["services"]
    pulling, operate = services["pull"], services["operate"]
    assert pulling["build"]["target"] == "pull"
    assert pulling["environment"]["SERVING_SOURCE"] == SOURCE
    # Everything else is the same: hardened, with limits, and the models can be written.
    own = {"build", "command", "environment", "profiles", "restart"}
    assert {k: v for k, v in pulling.items() if k not in own} == {
        k: v for k, v in operate.items() if k not in own
    }
    dockerfile = (ROOT / "Dockerfile.serve").read_text()
    # What is built without a target is the service.
    assert dockerfile.rstrip().endswith("\nFROM serve")
