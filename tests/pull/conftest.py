"""What the tests of `pull` share."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.registry.trial import Trials
from tests.pull.sources import S3, Looks, Rclone, point_at


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


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with S3() as server:
        point_at(server.server_port, monkeypatch)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def look(models: Path, trials: Trials, caplog: pytest.LogCaptureFixture) -> Looks:
    return Looks(models, trials, caplog)
