"""Which versions `pull` brings, and what it refuses."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.client import PolicyClient
from serving.registry import pull, source
from tests.artefacts import CARD, edit_card, files, publish, unsolve
from tests.conftest import ENVIRONMENT, Trained, run, running_service, wait_until
from tests.pull.sources import SOURCE, Looks, Rclone, end, found, left_over, point_at, running_pull
from tests.signatures import Key


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
    webdav = f"http://127.0.0.1:{bucket.port}/bucket/my%20folder/models"
    if kind == "webdav":
        bucket.models.parent.rename(bucket.models.parent.with_name("my folder"))
    url = {"s3": SOURCE, "webdav": webdav}[kind]
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
        for path in [pulled.parent, pulled, *pulled.rglob("*")]:
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
        (flip_a_byte, "saved_model.pb does not match its checksum on the card"),
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
