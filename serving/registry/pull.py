"""`pull`: copies the versions of a source into the models folder, each complete and checked."""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from serving.errors import first_line
from serving.policy.artefact import ArtefactError
from serving.registry.examination import examine
from serving.registry.source import Listed, Source, SourceError, listed_sizes
from serving.registry.store import find_files
from serving.registry.trial import Trials, TrialsEndedError
from serving.settings import Settings

logger = logging.getLogger(__name__)


class Puller:
    """Copies every version of a source that is not yet in the models folder.

    A version is fetched into a hidden folder, examined as `verify` does, and renamed into place.
    Versions that are already in the models folder are never changed.
    """

    def __init__(self, url: str, settings: Settings, trials: Trials) -> None:
        """Configure the source, without connecting; `settings` give the models folder and checks.

        Raises:
            SourceError: obstore is not installed, or does not support this URL.
        """
        self._source = Source(url)
        self._what = f"from {url} into {settings.models}"
        self._models = settings.models
        self._settings = settings
        self._trials = trials
        # Refused versions by name and number: their listing when refused, and the reason.
        self._refused: dict[tuple[str, int], tuple[Listed, str]] = {}
        self._troubles: set[str] = set()  # of the last `look`, so that each is logged once

    def look(self, report: Callable[[str], object]) -> bool:
        """Pull what is new at the source and report each version; return whether all went well.

        Failures are logged, unless the previous `look` had the same ones.

        Raises:
            TrialsEndedError: no version can be examined any more.
        """
        try:
            with _hidden_folder(self._models) as hidden:
                versions = self._source.versions()
                self._refused = {k: self._refused[k] for k in self._refused.keys() & versions}
                newest_first = sorted(versions, key=lambda key: (key[0], -key[1]))
                found = {self._pull(hidden, *key, versions[key], report) for key in newest_first}
            troubles = found - {""}
        except (SourceError, OSError) as error:
            # The failures of single versions are still true.
            troubles = self._troubles | {f"cannot pull {self._what}: {error}"}
        for trouble in sorted(troubles - self._troubles):
            logger.error("%s", trouble)
        self._troubles = troubles
        return not troubles

    def _pull(
        self,
        hidden: Path,
        name: str,
        number: int,
        listed: Listed,
        report: Callable[[str], object],
    ) -> str:
        """Pull a version, unless it exists or these files were refused; return what went wrong."""
        version, target = f"{name} version {number}", self._models / name / str(number)
        if os.path.lexists(target):
            is_same = _is_as_listed(target, listed)
            return "" if is_same else f"{version} differs from the source's, and is left as it is"
        refused, trouble = self._refused.get((name, number), (None, ""))
        if refused == listed:
            return trouble
        folder = hidden / name / str(number)
        try:
            self._source.fetch(f"{name}/{number}", listed_sizes(listed), folder)
            examine(folder, self._settings, self._trials)
            _publish(folder, target)
        except TrialsEndedError:
            raise
        except Exception as error:  # any error concerns only this version
            trouble = f"{version} is not pulled: {first_line(error)}"
            # Errors of the source or this machine may pass, so they are retried at the next `look`.
            if not isinstance(error, SourceError | OSError):
                self._refused[name, number] = listed, trouble
            return trouble
        finally:
            shutil.rmtree(folder.parent, ignore_errors=True)
        report(f"pulled {version}")
        return ""


@contextlib.contextmanager
def _hidden_folder(models: Path) -> Iterator[Path]:
    """An empty folder in the models folder; what a killed process left in it is removed.

    One process uses it at a time; others wait. The kernel releases the lock of a killed process.
    """
    folder = models / ".pulling"  # not a valid name of a model
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in filter(Path.is_dir, folder.iterdir()):
            shutil.rmtree(left_over)
        yield folder


def _is_as_listed(model_dir: Path, listed: Listed) -> bool:
    """Whether a version has the files that are listed, by their paths and sizes."""
    try:
        there = {(path, size) for path, size, *_ in find_files(model_dir).fingerprint}
        return there == set(listed_sizes(listed).items())
    except (ArtefactError, OSError):
        return False


def _publish(folder: Path, target: Path) -> None:
    """Make a version readable for all users, sync it to disk (fsync), and rename it into place."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    with contextlib.suppress(FileExistsError):
        target.parent.mkdir()
        target.parent.chmod(target.parent.stat().st_mode | 0o555)
    folder.rename(target)  # fails if another program has created it meanwhile
    _sync(target.parent)
    _sync(target.parent.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
