"""A run's folder: made, and its settings read, before TensorFlow is imported.

It holds `run.json` (the config, seed and versions), `metrics.csv` (a row per update, reproduced
by the same seed), TensorBoard events, `checkpoints/`, and at the end `learning_curve.png`,
`episode.gif` and, after the export, `result.json`.
"""

import dataclasses
import importlib.metadata
import json
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.config import REMOVED_OPTIONS, RunSettings, TrainingConfig
from training.files import write_json


class RunError(Exception):
    """A run's folder cannot be used as requested; the message says why."""


def claim(folder: Path, settings: RunSettings) -> None:
    """Make the folder of a new run.

    Raises:
        RunError: it holds something already, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise RunError(f"{folder} is not empty: --resume continues the run in it")
        write_json(
            folder / "run.json",
            {
                **settings._asdict(),
                "models": str(Path(settings.models).absolute()),  # --resume may be called elsewhere
                "config": dataclasses.asdict(settings.config),
                **provenance(),
            },
        )
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from error


def claim_next(base: Path, settings: RunSettings) -> Path:
    """Make the folder of a new run, `base/<next number>`.

    Raises:
        RunError: `base` cannot be written.
    """
    while True:
        numbers = [int(path.name) for path in base.glob("*") if path.name.isdecimal()]
        folder = base / str(max(numbers, default=0) + 1)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue  # another run that started at the same time has taken the number
        except OSError as error:
            raise RunError(f"{folder} cannot be written: {error.strerror}") from error
        claim(folder, settings)
        return folder


def read_settings(folder: Path) -> RunSettings:
    """Read the settings of the run in a folder.

    Raises:
        RunError: there is no run to resume in it.
    """
    if (folder / "result.json").exists():
        raise RunError(f"the run in {folder} has ended: there is nothing to resume")
    try:
        stored = json.loads((folder / "run.json").read_text())
        options: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in stored["config"].items()
            if (name, value) not in REMOVED_OPTIONS.items()
        }
        config = TrainingConfig(**options)
        return RunSettings(**{name: stored[name] for name in RunSettings._fields})._replace(
            config=config
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder} holds no run to resume: {error}") from error


def provenance() -> dict[str, Any]:
    """The time, and the versions of the code and its libraries, in JSON values."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        "versions": {
            "python": platform.python_version(),
            "tensorflow": _tensorflow_version(),
            "gymnasium": importlib.metadata.version("gymnasium"),
            "numpy": importlib.metadata.version("numpy"),
        },
    }


def _tensorflow_version() -> str:
    """The version of TensorFlow, whose package has another name where it is built without CUDA."""
    try:
        return importlib.metadata.version("tensorflow-cpu")
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version("tensorflow")


def _git_commit() -> str | None:
    """The commit of the source that trains, where it is a git checkout."""
    try:
        finished = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return finished.stdout.strip()
