"""A study: what is searched, and the SQLite file in which Optuna stores its trials."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from training.config import TrainingConfig
from training.config_options import to_values
from training.errors import StorageError, TrainingError, first_line
from training.files import lock, opened
from training.search import POINTS

SECONDS_TO_WAIT_FOR_THE_STORAGE = 60


class StudyError(TrainingError):
    """A study cannot begin or continue as requested; the message says why."""


class Study(NamedTuple):
    """What is searched, and where its trials are stored."""

    name: str
    storage: Path  # an SQLite file
    config: TrainingConfig  # all that is not searched
    searched: list[str]
    seeds: int  # runs of a trial

    def settings(self) -> dict[str, Any]:
        """What must be the same for trials to be comparable, in JSON values."""
        settings = {**to_values(self.config), "seeds": self.seeds, "searched": self.searched}
        return dict(json.loads(json.dumps(settings)))


@contextmanager
def locked(storage: Path) -> Iterator[None]:
    """Keep every other `tune` out of a storage, which is made if it is missing.

    Raises:
        StudyError: another process has it, or it cannot be read.
    """
    try:
        storage.touch()  # an empty file is an empty database
    except OSError as error:
        raise StudyError(f"{storage} cannot be written: {error.strerror}") from error
    # SQLite's own locks are of another kind (fcntl), which this one (flock) does not touch.
    with opened(storage) as descriptor:
        try:
            lock(descriptor)
        except BlockingIOError as error:
            raise StudyError(f"{storage} is in use: another process tunes in it") from error
        yield


@contextmanager
def errors_of_storage(study: Study) -> Iterator[None]:
    """Raise `StorageError` where Optuna or SQLAlchemy cannot use the storage of a study."""
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        reason: BaseException = error
        while reason.__cause__ is not None:  # SQLite's own words
            reason = reason.__cause__
        raise StorageError(
            f"{study.storage} cannot be used: {reason}; the same command continues the study"
        ) from error


def begin(study: Study) -> optuna.Study:
    """Load a study from its locked storage, or make it there.

    Raises:
        StudyError: the storage cannot be used, or has the study with other settings.
    """
    if set("?{}") & set(str(study.storage.absolute())):
        raise StudyError(f"{study.storage}: a path with ?, {{ or }} cannot be a storage")
    try:
        found = load(study)
    except (SQLAlchemyError, RuntimeError, UnicodeError, optuna.exceptions.OptunaError) as error:
        raise StudyError(f"{study.storage} cannot be used: {first_line(error)}") from error
    settings = study.settings()
    stored = found.user_attrs.get("settings", settings)
    if stored != settings:
        names = (name for name in settings if stored.get(name) != settings[name])
        raise StudyError(
            f"the study {study.name} in {study.storage} has another value of {', '.join(names)}: "
            "give the new study another --name"
        )
    found.set_user_attr("settings", settings)
    # No worker of an earlier start is alive: workers end with the process that held the lock.
    for stale in found.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        found.tell(stale.number, state=optuna.trial.TrialState.FAIL)
    return found


def load(study: Study, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    """Load a study from its storage, or make it there."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # it warns of errors, with tracebacks
    # Not a hand-made URL: from 2.1 on, SQLAlchemy would decode a `%41` in the path.
    url = URL.create("sqlite", database=str(study.storage.absolute()))
    storage = optuna.storages.RDBStorage(
        url.render_as_string(),
        engine_kwargs={"connect_args": {"timeout": SECONDS_TO_WAIT_FOR_THE_STORAGE}},
    )
    return optuna.create_study(
        study_name=study.name,
        storage=storage,
        sampler=sampler,
        pruner=optuna.pruners.MedianPruner(n_warmup_steps=POINTS // 10),
        direction="maximize",
        load_if_exists=True,
    )
