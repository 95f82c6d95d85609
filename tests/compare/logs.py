"""Logs of a canary, made by hand, and what `compare` says of them."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from click.testing import CliRunner

from serving.cli import commands
from serving.record.lines import Block, Decision, Feedback, Head
from serving.registry.store import Store, find_files
from serving.schemas import ModelVersion
from tests.test_outcomes import fed, time

Lines = list[Decision | Feedback]


def digest_of(models: Path, version: int) -> str:
    with Store() as store:
        model_dir = models / "cartpole" / str(version)
        return store.copy(model_dir, find_files(model_dir).paths)[:12]


def decided(
    models: Path, seconds: float, episode: str, version: int, selection: str = "s", **fields: Any
) -> Decision:
    columns: dict[str, Any] = {
        "actions": [0],
        "log_probabilities": [-0.1],
        "state_values": [1.0],
        "seed": 0,
    }
    return Decision(
        number=1,
        id=f"{episode}-{seconds}",
        time=time(seconds),
        model=ModelVersion("cartpole", version, digest_of(models, version)),
        selection=selection,
        episode=episode,
        milliseconds=1,
        **(columns | fields),
    )


def canary(
    models: Path, better: float, episodes: int = 300, share: float = 0.5, version: int = 2
) -> Lines:
    """Episodes of version 1 and another one, which is better by so many returns on average."""
    rng = np.random.default_rng(1)
    lines: Lines = []
    one, other = (decided(models, 0, "e", number) for number in (1, version))
    for index in range(episodes):
        is_challenger = rng.random() < share
        value = round(rng.uniform(150, 250) + better * is_challenger, 3)
        which = other if is_challenger else one
        named = {"episode": f"e{index}", "time": time(index), "id": f"d{index}"}
        lines.append(msgspec.structs.replace(which, **named))
        # Longer episodes end later, among those of others.
        lines.append(fed(index + value / 10, f"e{index}", whole=value, ended=True))
    return lines


def write_log(folder: Path, lines: Iterable[Decision | Feedback]) -> Path:
    """One file of one worker that has stopped."""
    folder.mkdir()
    head = Head(stream="0a", part=1, number=1, previous="", time=time(0), sample=1.0, rows=True)
    numbered = [msgspec.structs.replace(line, number=n) for n, line in enumerate(lines, 1)]
    content = b"".join(msgspec.json.encode(line) + b"\n" for line in [head, *numbered])
    block = Block(sha256=hashlib.sha256(content).hexdigest(), end="stopped")
    (folder / "20261129T112832Z-0a-000001.jsonl").write_bytes(
        content + msgspec.json.encode(block) + b"\n"
    )
    return folder


def arguments(models: Path, log: Path, champion: int = 1, challenger: int = 2) -> list[str]:
    versions = ("--champion", str(champion), "--challenger", str(challenger))
    return ["compare", *versions, "--log", str(log), "--models", str(models)]


def compared(models: Path, log: Path) -> Any:
    finished = CliRunner().invoke(commands, [*arguments(models, log), "--json"])
    assert (finished.exit_code, finished.stderr) == (0, ""), finished.output
    return json.loads(finished.stdout)
