"""What `compare` refuses, and why."""

import hashlib
from pathlib import Path

import msgspec
import pytest

from serving.cli import commands
from serving.record.lines import Block, Decision
from serving.schemas import ModelVersion
from tests.artefacts import publish
from tests.compare.logs import arguments, canary, write_log
from tests.signatures import mistake_here
from tests.test_canary import rename_observation


def refusal(models: Path, log: Path, champion: int = 1, challenger: int = 2) -> str:
    return mistake_here(commands, *arguments(models, log, champion, challenger))


def test_versions_that_cannot_be_compared_are_refused(models: Path, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", canary(models, 60, episodes=20))
    message = refusal(models, log, 1, 3)
    assert "return_bounds of version 1 is (0.0, 500.0), that of version 3 is None" in message
    publish(models / "cartpole" / "3", models / "cartpole" / "5")
    assert "the cards have no return_bounds, which" in refusal(models, log, 3, 5)
    message = refusal(models, log, 1, 4)
    assert "environment of version 1 is CartPole-v1, that of version 4 is Acrobot-v1" in message
    publish(models / "cartpole" / "2", models / "cartpole" / "6", rename_observation)
    assert "the two versions have different observations" in refusal(models, log, 1, 6)
    assert "version 1 cannot be compared with itself" in refusal(models, log, 1, 1)
    assert "cartpole/9 cannot be read: No such file" in refusal(models, log, 1, 9)


def test_a_log_of_something_else_is_refused(models: Path, tmp_path: Path) -> None:
    lines = canary(models, 60, episodes=20)
    assert "has no decision log files" in refusal(models, models)
    (first, *_) = lines
    assert isinstance(first, Decision)
    other = msgspec.structs.replace(first, model=ModelVersion("acrobot", 1, "d"))
    message = refusal(models, write_log(tmp_path / "model", [other]))
    assert "has no decisions of the model cartpole; it has: acrobot" in message
    other = msgspec.structs.replace(first, model=ModelVersion("cartpole", 2, "0123456789ab"))
    message = refusal(models, write_log(tmp_path / "digest", [other]))
    assert "version 2 on record has the digest 0123456789ab, and the one on the disk " in message
    log = write_log(tmp_path / "cut", lines)
    (file,) = log.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    assert file.name in refusal(models, log)


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (b"NaN", "-0a-000001.jsonl, line "),
        (b"null", "-0a-000001.jsonl, line "),
        (b"500.5", "episode e3 has the return 500.5, outside the return_bounds 0 to 500"),
        (b"-1", "episode e3 has the return -1, outside the return_bounds 0 to 500"),
    ],
)
def test_a_return_that_cannot_be_is_refused(
    models: Path, tmp_path: Path, reward: bytes, message: str
) -> None:
    lines = canary(models, 60, episodes=20)
    wrong = [line for line in lines if getattr(line, "return_", None) and line.episode == "e3"]
    lines[lines.index(wrong[0])] = msgspec.structs.replace(wrong[0], return_=None, rewards=[1234.5])
    log = write_log(tmp_path / "log", lines)
    (file,) = log.iterdir()
    *content, _ = file.read_bytes().replace(b"1234.5", reward).splitlines(keepends=True)
    block = Block(sha256=hashlib.sha256(b"".join(content)).hexdigest(), end="stopped")
    file.write_bytes(b"".join(content) + msgspec.json.encode(block) + b"\n")
    assert message in refusal(models, log)
