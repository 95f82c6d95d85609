"""A run's folder: it is made, and its settings are read, before TensorFlow is imported.

It holds `run.json` (the config, seed and versions), `metrics.csv` (a row per update, reproduced
by the same seed), TensorBoard events, `checkpoints/`, and at the end `learning_curve.png`,
`episode.gif` and, after the export, `result.json`.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.config import ConfigError, RunSettings, config_from
from training.errors import TrainingError
from training.files import lock, opened, write_json

SETTINGS = "run.json"
RESULT = "result.json"
CHECKSUM = "checksum"  # of the rest of run.json


class RunError(TrainingError):
    """A run's folder cannot be used as requested; the message says why."""


def next_folder(base: Path) -> Path:
    """Make the folder of a new run, `base/<next number>`.

    Raises:
        RunError: `base` cannot be written.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        while True:
            numbers = [int(name) for name in os.listdir(base) if name.isdecimal()]
            folder = base / str(max(numbers, default=0) + 1)
            with contextlib.suppress(FileExistsError):  # another run has just taken the number
                folder.mkdir()
                return folder
    except OSError as error:
        raise RunError(f"{error.filename} cannot be written: {error.strerror}") from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder of a run, if it is missing, and keep every other run out of it.

    Raises:
        RunError: another run is in it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from error
    with opened(folder) as descriptor:
        try:
            lock(descriptor)
        except BlockingIOError as error:
            raise RunError(f"{folder} is in use: another process trains in it") from error
        yield


def claim(folder: Path, settings: RunSettings) -> None:
    """Turn a locked, empty folder into the folder of a new run.

    Raises:
        RunError: it is not empty, or cannot be written.
    """
    try:
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise RunError(f"{folder} is not empty: --resume continues the run in it")
        write_settings(folder, settings)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from error


def write_settings(folder: Path, settings: RunSettings) -> None:
    """Write a run's settings to its folder; keep the time and the versions it began with."""
    path = folder / SETTINGS
    began = json.loads(path.read_text()) if path.exists() else provenance()
    content = {
        **began,
        **settings._asdict(),
        "models": str(Path(settings.models).absolute()),  # --resume may be called elsewhere
        "config": dataclasses.asdict(settings.config),
    }
    content.pop(CHECKSUM, None)
    write_json(path, {**content, CHECKSUM: _checksum(content)})


def read_settings(folder: Path) -> RunSettings:
    """Read the settings of the run in a folder.

    Raises:
        RunError: there is no run to resume in it, or its settings were changed.
    """
    try:
        stored = json.loads((folder / SETTINGS).read_text())
        if not isinstance(stored, dict) or CHECKSUM not in stored:
            raise RunError(f"{folder} holds no run to resume: {SETTINGS} is not of this version")
        checksum = stored.pop(CHECKSUM)
        if checksum != _checksum(stored):
            raise RunError(
                f"{folder / SETTINGS} is not as this program wrote it: the checkpoints belong to "
                "other settings, for which a new run is needed"
            )
        given = {name: stored[name] for name in RunSettings._fields if name in stored}
        return RunSettings(**given)._replace(config=config_from(stored["config"]))
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise RunError(f"{folder} holds no run to resume: {error}") from error


def require_unfinished(folder: Path, *, larger_budget: bool = False) -> None:
    """Check that the run in a folder has not ended, or may continue with a larger budget.

    Raises:
        RunError: it has ended.
    """
    try:
        result = json.loads((folder / RESULT).read_text())
        if not isinstance(result, dict):
            raise ValueError("it is not a JSON object")
    except FileNotFoundError:
        return
    except (OSError, RecursionError, ValueError) as error:
        raise RunError(f"{folder / RESULT} cannot be read: {error}") from error
    if result.get("solved") and result.get("reward_threshold") is not None:
        raise RunError(f"the run in {folder} has ended: it is solved")
    if not larger_budget:
        raise RunError(f"the run in {folder} has ended: only a larger --max-env-steps continues it")


def extend(folder: Path, settings: RunSettings, max_env_steps: int) -> RunSettings:
    """Give the run in a locked folder a larger budget, even if it has ended unsolved.

    Raises:
        RunError: the budget is not larger, or the run is solved.
    """
    require_unfinished(folder, larger_budget=True)
    if max_env_steps <= settings.config.max_env_steps:
        raise RunError(
            f"--max-env-steps {max_env_steps} is not more than the "
            f"{settings.config.max_env_steps} of the run"
        )
    larger = dataclasses.replace(settings.config, max_env_steps=max_env_steps)
    settings = settings._replace(config=larger)
    # The result first: a run with both a result and the new budget could not be resumed.
    (folder / RESULT).unlink(missing_ok=True)
    write_settings(folder, settings)
    return settings


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    """The commit of this source, if it is a git checkout."""
    file = Path(__file__)
    try:
        finished = subprocess.run(
            # The file, too: git may have found a repository that only contains an installation.
            ["git", "rev-parse", "HEAD", f"HEAD:./{file.name}"],
            cwd=file.parent,
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return finished.stdout.split()[0]
