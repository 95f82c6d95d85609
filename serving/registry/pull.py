"""`pull`: brings the versions of a source into the models folder, each whole and checked."""

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
    """Brings every version of a source that is not in the models folder.

    A version is fetched into a hidden folder, examined as `verify` does, and renamed into place.
    What is in the models folder already is never changed.
    """

    def __init__(self, url: str, settings: Settings, trials: Trials) -> None:
        """Configure the source, without connecting; `settings` have the models folder and checks.

        Raises:
            SourceError: it cannot be read, whatever it holds.
        """
        self._source = Source(url)
        self._what = f"from {url} into {settings.models}"
        self._models = settings.models
        self._settings = settings
        self._trials = trials
        # By name and number: what was listed for a version that was refused, and the reason.
        self._refused: dict[tuple[str, int], tuple[Listed, str]] = {}
        self._troubles: set[str] = set()  # of the last look, to log each once

    def look(self, report: Callable[[str], object]) -> bool:
        """Pull what is new at the source and report each version; return whether all went well.

        What did not is logged, unless it was the same at the last look.

        Raises:
            TrialsEndedError: nothing can be examined any more.
        """
        try:
            with _hidden_folder(self._models) as hidden:
                versions = self._source.versions()
                self._refused = {k: self._refused[k] for k in self._refused.keys() & versions}
                newest_first = sorted(versions, key=lambda key: (key[0], -key[1]))
                found = {self._pull(hidden, *key, versions[key], report) for key in newest_first}
            troubles = found - {""}
        except (SourceError, OSError) as error:
            # What is known of versions is still so.
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
        """Pull a version, unless it is there or was refused as it is; return what went wrong."""
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
        except Exception as error:  # whatever it is, it is this version's and hurts no other
            trouble = f"{version} is not pulled: {first_line(error)}"
            # The source or this machine may do better at the next look; the files will not.
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

    It is for one process at a time, and others wait. The kernel ends the lock of a killed one.
    """
    folder = models / ".pulling"  # which is not the name of a model
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
    """Sync a version to disk (fsync), readable for every user, and then rename it into place."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)
    with contextlib.suppress(FileExistsError):
        target.parent.mkdir()
        target.parent.chmod(target.parent.stat().st_mode | 0o555)
    folder.rename(target)  # fails if another program has made it meanwhile
    _sync(target.parent)
    _sync(target.parent.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
