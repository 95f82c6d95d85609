"""The models folder may be read-only, be written file by file, or go away."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import urllib3

from serving.client import PolicyClient
from tests.artefacts import CARD, edit_card, files, publish
from tests.conftest import Service, Trained, running_service, wait_until
from tests.faults.conftest import Tell
from tests.faults.load import Load
from tests.faults.mounts import seen_by, with_mounts
from tests.faults.wire import Wire, children, metric, post

POLL = ("--poll-seconds", "0.05")


def served(service: Service) -> int:
    with Wire(service.url) as wire:
        answer = wire.ask(post())
    assert answer.status == 200
    version: int = answer.json()["model"]["version"]
    return version


def test_a_version_that_is_copied_piece_by_piece_is_served_when_it_is_whole(
    trained: Trained, tmp_path: Path, tell: Tell
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    target = models / "cartpole" / "2"
    log = tmp_path / "log"
    seen = 0

    def is_refused_again() -> bool:
        return log.read_text().count("refused cartpole version 2") > seen

    with running_service(models, log, "--workers", "1", *POLL) as service:
        PolicyClient(service.url).wait_until_ready(60)
        with Load(service.url, 2) as load:
            pieces = 0
            for path in files(trained.model_dir):
                content = (trained.model_dir / path).read_bytes()
                assert len(content) > 1
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                for part in (content[: len(content) // 2], content[len(content) // 2 :]):
                    if pieces:
                        wait_until(is_refused_again)
                    seen = log.read_text().count("refused cartpole version 2")
                    assert served(service) == 1
                    with (target / path).open("ab") as file:
                        file.write(part)
                    pieces += 1
            wait_until(lambda: served(service) == 2)
        tell(f"copied in {pieces} pieces: {load.outcome}")
        assert load.outcome.sent == load.outcome.statuses[200]
        assert set(load.outcome.versions) <= {1, 2}


def test_a_read_only_folder_is_served_and_followed(trained: Trained, tmp_path: Path) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    mount = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"'
    within = with_mounts(mount, models)
    with running_service(models, tmp_path / "log", *POLL, within=within) as service:
        PolicyClient(service.url).wait_until_ready(60)
        with pytest.raises(OSError, match="Read-only"):
            (seen_by(service.process.pid, models) / "x").touch()
        publish(trained.model_dir, models / "cartpole" / "2")
        wait_until(lambda: served(service) == 2)


def another(model_dir: Path) -> None:
    """Make a version another one, which is as good."""
    edit_card(model_dir, lambda card: card.update(created="another day"))


def get(service: Service, path: str) -> urllib3.BaseHTTPResponse:
    """Ask again only where a worker was killed before it answered."""
    retries = urllib3.Retry(3, redirect=False, respect_retry_after_header=False)
    return urllib3.request("GET", service.url + path, retries=retries)


def answers(service: Service) -> set[tuple[int, str]]:
    """The version and digest, or the reason for none, that new connections are told of."""
    told = set()
    for _ in range(16):
        answer = get(service, "/health/ready").json()
        model = answer.get("model")
        told.add((model["version"], model["digest"]) if model else (0, answer["detail"]))
    return told


def wait_until_told(service: Service, version: int, text: str = "", unlike: str = "-") -> str:
    """Wait until all workers agree; their digest, or their reason."""

    def is_told() -> bool:
        # Many rounds: a worker that starts takes no connections yet, and may then know less.
        seen = set().union(*(answers(service) for _ in range(6)))
        return len(seen) == 1 and all(
            one == version and text in told and told != unlike for one, told in seen
        )

    wait_until(is_told)
    ((_, told),) = answers(service)
    return told


class Folder(NamedTuple):
    """A models folder with versions 1 and 2, and a good version of other content."""

    models: Path
    other: Path

    @property
    def model(self) -> Path:
        return self.models / "cartpole"

    def restore(self) -> None:
        """Leave versions 1 and 2, both as they were made, whatever was there."""
        shutil.rmtree(self.model, ignore_errors=True)
        self.model.mkdir()
        for version in ("1", "2"):
            publish(self.other, self.model / version)

    def delete(self) -> None:
        shutil.rmtree(self.model / "2")

    def replace(self) -> None:
        shutil.rmtree(self.model / "2")
        publish(self.other, self.model / "2", another)

    def damage(self) -> None:
        with (self.model / "2" / "saved_model.pb").open("r+b") as file:
            file.write(b"\0")

    def mend(self) -> None:
        """As `cp -p` does: with the time of the right file."""
        damaged = self.model / "2" / "saved_model.pb"
        content, status = damaged.read_bytes(), damaged.stat()
        self.damage()
        time.sleep(0.5)
        damaged.write_bytes(content)
        os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))

    def empty(self) -> None:
        for version in ("1", "2"):
            shutil.rmtree(self.model / version)

    def remove(self) -> None:
        shutil.rmtree(self.model)

    def leave_an_older_one(self) -> None:
        self.empty()
        publish(self.other, self.model / "1", another)


@pytest.fixture(scope="module")
def followed(
    trained: Trained, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Folder]]:
    """A service of a folder that a test may change in any way and leave so."""
    models = tmp_path_factory.mktemp("followed") / "models"
    folder = Folder(models, trained.model_dir)
    models.mkdir()
    folder.restore()
    with running_service(models, models.parent / "log", "--workers", "2", *POLL) as service:
        PolicyClient(service.url).wait_until_ready(60)
        yield service, folder


@pytest.mark.parametrize(
    ("change", "version", "text"),
    [
        (Folder.delete, 1, ""),
        (Folder.replace, 2, ""),
        (Folder.damage, 1, ""),
        (Folder.mend, 2, ""),
        (Folder.leave_an_older_one, 1, ""),
        (Folder.empty, 0, "there is none yet"),
        (Folder.remove, 0, "there is none yet"),
    ],
)
def test_what_is_served_follows_from_the_folder_alone(
    trained: Trained,
    followed: tuple[Service, Folder],
    change: Callable[[Folder], None],
    version: int,
    text: str,
) -> None:
    service, folder = followed
    folder.restore()
    before = wait_until_told(service, 2)
    change(folder)
    booted = service.log.read_text().count("Booting worker")
    os.kill(children(service.process.pid)[0], signal.SIGKILL)
    wait_until(lambda: service.log.read_text().count("Booting worker") == booted + 1)
    is_same_content = change in (Folder.delete, Folder.damage, Folder.mend)
    told = wait_until_told(service, version, text, "-" if is_same_content else before)
    assert (told == before) is is_same_content
    # In every worker: 48 bits of the digest, which are 0 where nothing is served.
    number = int(told, 16) if version else 0
    wait_until(lambda: list(metric(service.url, "policy_served_digest").values()) == [number] * 2)
    publish(trained.model_dir, folder.models / "cartpole-3")
    folder.model.mkdir(exist_ok=True)
    (folder.models / "cartpole-3").rename(folder.model / "3")
    assert wait_until_told(service, 3) == before
    assert "Traceback" not in service.log.read_text()


def test_what_was_read_last_is_served_while_the_folder_is_away(
    trained: Trained, tmp_path: Path
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    log = tmp_path / "log"
    with running_service(models, log, "--workers", "2", *POLL) as service:
        PolicyClient(service.url).wait_until_ready(60)
        digest = wait_until_told(service, 1)
        models.rename(tmp_path / "away")
        wait_until(lambda: "cannot be read" in log.read_text())
        os.kill(children(service.process.pid)[0], signal.SIGKILL)
        # The worker that starts now has never seen the folder.
        wait_until(lambda: log.read_text().count("Booting worker") == 3)
        assert wait_until_told(service, 1) == digest
        publish(trained.model_dir, tmp_path / "away" / "cartpole" / "2", another)
        (tmp_path / "away").rename(models)
        assert wait_until_told(service, 2) != digest


def test_no_entry_of_the_folder_hurts_another(trained: Trained, tmp_path: Path) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    model, log = models / "cartpole", tmp_path / "log"
    os.mkdir(os.fsencode(models) + b"/\xff")
    os.mkdir(os.fsencode(model) + b"/\xff")
    (models / "a file").touch()
    for name in ("20251125010203123456", "007", "\u0663", "-1"):
        (model / name).mkdir()
    publish(trained.model_dir, model / "2", lambda folder: os.mkfifo(folder / "pipe"))
    publish(
        trained.model_dir, model / "3", lambda folder: (folder / CARD).write_text("[" * 200_000)
    )
    publish(
        trained.model_dir, model / "4", lambda folder: (folder / CARD).write_bytes(b'{"a":"\xff"}')
    )
    (model / "5").touch()
    (model / "6").symlink_to(trained.model_dir)
    publish(trained.model_dir, model / "7", lambda folder: edit_card(folder, huge_seed))
    publish(trained.model_dir, model / "8", lambda folder: (folder / os.fsdecode(b"\xff")).touch())
    with running_service(models, log, "--workers", "2", *POLL) as service:
        PolicyClient(service.url).wait_until_ready(60)
        wait_until_told(service, 7)
        for path in ("/models", "/models/cartpole", "/metrics", "/openapi.json", "/docs"):
            assert get(service, path).status == 200, path
        assert PolicyClient(service.url).policy_card()["training"]["seed"] == 2**64
        shutil.rmtree(model / "7")
        wait_until_told(service, 1)
        report = get(service, "/models").json()["models"][0]["versions"]
        assert [one["version"] for one in report] == [8, 6, 5, 4, 3, 2, 1]
        assert {one["state"] for one in report[:-1]} == {"refused"}
    logged = log.read_text()
    assert "Traceback" not in logged
    assert logged.count("'a file' in ") == 2  # once for each worker


def huge_seed(card: dict[str, Any]) -> None:
    card["training"]["seed"] = 2**64
