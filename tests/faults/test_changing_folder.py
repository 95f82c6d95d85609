"""A models folder that is changed at random, in every way that people and programs change one."""

import json
import os
import random
import shutil
import signal
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from serving.client import PolicyClient
from tests.artefacts import edit_card, publish, unsolve
from tests.conftest import Trained, running_service, wait_until
from tests.faults.conftest import Tell
from tests.faults.test_models_folder import answers, get
from tests.faults.wire import children

LISTINGS = ("/models", "/metrics", "/openapi.json", "/docs", "/v2", "/health/live")
NUMBERS = (1, 2, 3, 9, 10, 2**63 - 1)
ODD_NAMES = (b"\xff", b"007", b"-1", b"\xd9\xa3", b"9" * 19, b"1 ", b"new\nline", b".hidden")


class Hands:
    """Changes a models folder, and knows which version should be served then.

    Attributes:
        expected: that version; 0 for none.
    """

    def __init__(self, models: Path, good: Path, seed: int, settle: Callable[[], None]) -> None:
        self._settle = settle
        self._models = models
        self._model = models / "cartpole"
        self._good = good
        self._random = random.Random(seed)
        self._is_good = {1: True}
        self._selected: int | None = None  # the newest
        self._count = 0

    @property
    def expected(self) -> int:
        good = [number for number, is_good in self._is_good.items() if is_good]
        if self._selected is not None:
            return self._selected if self._selected in good else 0
        return max(good, default=0)

    def change(self) -> str:
        """Change something; what."""
        changes: list[Callable[[], None]] = [
            *(self.publish, self.publish, self.delete, self.damage, self.spoil, self.clutter),
            *(self.select, self.select_newest, self.scribble, self.remove),
        ]
        change = self._random.choice(changes)
        self._model.mkdir(exist_ok=True)
        change()
        return f"{change.__name__}: {self.expected} of {self._is_good}, selected {self._selected}"

    def publish(self) -> None:
        """A version of another content takes a number, or one that is not solved does."""
        number, is_good = self._random.choice(NUMBERS), self._random.random() < 0.8
        target = self._model / str(number)
        shutil.rmtree(target, ignore_errors=True)
        self._count += 1

        def change(model_dir: Path) -> None:
            edit_card(model_dir, lambda card: card.update(created=f"day {self._count}"))
            if not is_good:
                unsolve(model_dir)

        publish(self._good, target, change)
        self._is_good[number] = is_good

    def delete(self) -> None:
        for number in self._some():
            shutil.rmtree(self._model / str(number))
            del self._is_good[number]

    def damage(self) -> None:
        """One byte of a file is another one, and the times of the file are as they were."""
        for number in self._some():
            paths = sorted((self._model / str(number)).rglob("*"))
            files = [path for path in paths if stat.S_ISREG(path.lstat().st_mode)]
            path = self._random.choice([path for path in files if path.stat().st_size])
            content, times = bytearray(path.read_bytes()), path.stat()
            content[self._random.randrange(len(content))] ^= 1
            path.write_bytes(content)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
            self._is_good[number] = False

    def spoil(self) -> None:
        """A version has something in it that is not a file, or a file that nobody listed."""
        for number in self._some():
            path = self._model / str(number) / f"odd {self._random.random()}"
            make: Callable[[Path], object] = self._random.choice(
                [os.mkfifo, Path.touch, lambda path: path.symlink_to("/dev/null")]
            )
            make(path)
            self._is_good[number] = False

    def clutter(self) -> None:
        """Names that are none appear beside the models and the versions."""
        for folder in (self._models, self._model):
            path = os.fsencode(folder) + b"/" + self._random.choice(ODD_NAMES)
            if not os.path.lexists(path):
                self._random.choice([os.mkdir, os.mkfifo, lambda p: os.symlink("/", p)])(path)

    def select(self) -> None:
        self._selected = self._random.choice(NUMBERS)
        self._write_selection(f'{{"serve": {self._selected}}}')

    def select_newest(self) -> None:
        self._selected = None
        self._write_selection('{"serve": "newest"}')

    def scribble(self) -> None:
        """The selection becomes invalid, which changes nothing once the one before was read."""
        self._settle()
        self._write_selection('{"serve": "the best"}')

    def remove(self) -> None:
        """The whole folder of the model goes."""
        shutil.rmtree(self._model)
        self._is_good, self._selected = {}, None

    def _write_selection(self, content: str) -> None:
        (self._model / ".new").write_text(content)
        (self._model / ".new").replace(self._model / "serve.json")

    def _some(self) -> list[int]:
        """A version that is there, if one is."""
        return [self._random.choice(sorted(self._is_good))] if self._is_good else []


@pytest.mark.parametrize("events", [25, pytest.param(200, marks=pytest.mark.long)])
def test_workers_agree_on_what_the_folder_says_after_any_change(
    trained: Trained, tmp_path: Path, tell: Tell, events: int
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    log, seed = tmp_path / "log", random.randrange(2**32)
    tell(f"seed {seed}")
    chance = random.Random(seed)
    with running_service(models, log, "--workers", "2", "--poll-seconds", "0.1") as service:
        PolicyClient(service.url).wait_until_ready(60)
        killed = marks = 0

        def settle() -> None:
            """Wait until every worker has looked at all of the folder: it tells of odd names first.

            The second name is seen by a look that began after the first one's had ended.
            """
            nonlocal marks
            for _ in range(2):
                marks += 1
                mark = models / f"mark {marks}"
                mark.touch()
                wait_until(partial(service_looked, mark.name))
                mark.unlink()

        def service_looked(name: str) -> bool:
            lines = [line for line in log.read_text().splitlines() if f"'{name}'" in line]
            processes = {json.loads(line)["process"] for line in lines}
            return set(children(service.process.pid)) <= processes

        hands = Hands(models, trained.model_dir, seed, settle)
        for event in range(events):
            if chance.random() < 0.1:
                settle()  # what a worker has not seen by then, it cannot know
                models.rename(tmp_path / "away")
                wait_until(lambda: {number for number, _ in answers(service)} == {hands.expected})
                (tmp_path / "away").rename(models)
            what = hands.change()
            if chance.random() < 0.05:
                os.kill(chance.choice(children(service.process.pid)), signal.SIGKILL)
                killed += 1
            for path in LISTINGS:
                assert get(service, path).status == 200, (seed, event, what, path)
            try:
                wait_until(
                    lambda: (
                        {number for number, _ in seen} == {hands.expected}
                        if len(seen := answers(service)) == 1
                        else False
                    ),
                    15,
                )
            except AssertionError:
                raise AssertionError((seed, event, what, answers(service))) from None
        assert log.read_text().count("Booting worker") == 2 + killed
    assert "Traceback" not in log.read_text()
