"""Probe of what a Ray node has; sent by value, since the node's `training` may differ."""

import hashlib
import importlib
import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIBRARIES = ("numpy", "gymnasium", "cloudpickle")


def probe(environment: tuple[Any, ...], modules: Sequence[str], packages: Sequence[str]) -> Any:
    """What has to be the same on all machines, as texts by their names.

    Args:
        environment: a `training.config.Environment` as a plain tuple.
        modules: those that it is made from.
        packages: further ones that are needed, besides `LIBRARIES`.
    """
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in (*LIBRARIES, *packages):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    try:
        for module in ("training", *modules):
            found[f"the code of {module}"] = digest(module)
        # Only now, after the digests: what follows runs that machine's own code.
        config = importlib.import_module("training.config")
        envs = importlib.import_module("training.envs")
        described = envs.describe(config.Environment(*environment))
    # An environment is third-party code and can raise anything.
    except Exception as error:
        found[environment[0]] = f"{type(error).__name__}: {error}"
        return found
    bounds = hashlib.sha256(described.low.tobytes() + described.high.tobytes()).hexdigest()[:8]
    found[environment[0]] = (
        f"{len(described.observation_names)} numbers within bounds {bounds}, "
        f"{len(described.action_names)} actions, at most {described.max_episode_steps} steps"
    )
    return found


def digest(name: str) -> str:
    """A hash of the paths and contents of a module's or package's files."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    file = Path(module.__file__)
    files = sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(file.parent).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]
