"""Search hyperparameters with Optuna, in several processes, resumed from an SQLite file."""

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import optuna
from optuna.trial import FixedTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from training.config import TrainingConfig
from training.config_options import to_values
from training.errors import TrainingError, first_line
from training.files import opened, try_lock
from training.options import many_imports
from training.search import POINTS, propose

SECONDS_TO_WAIT_FOR_THE_STORAGE = 60
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class TuneError(TrainingError):
    """A study cannot begin, go on or have a result; the message says why."""


class KilledError(TrainingError):
    """A process that runs trials was killed, such as for its memory."""

    exit_status = 1


class Study(NamedTuple):
    """What is searched, and where its trials are stored."""

    name: str
    storage: Path  # an SQLite file
    config: TrainingConfig  # all that is not searched
    searched: list[str]
    seeds: int  # runs of a trial

    def settings(self) -> dict[str, Any]:
        """What makes trials comparable, as it is read from JSON."""
        settings = {**to_values(self.config), "seeds": self.seeds, "searched": self.searched}
        return dict(json.loads(json.dumps(settings)))


class Best(NamedTuple):
    """The best trial of a study."""

    number: int
    score: float
    config: TrainingConfig
    counts: dict[str, int]  # of all trials, by how they ended


def tune(study: Study, trials: int, processes: int, seed: int) -> Best:
    """Run trials until a study has as many as wanted, and return the best.

    The best has the highest `training.trial.score`. Trials are pruned by Optuna's median rule. The
    seed does not make a study reproducible: what is proposed depends on which trials were stored
    by then.

    Args:
        study: which.
        trials: how many, with those that are stored already.
        processes: how many trials at a time.
        seed: of the sampler.

    Raises:
        KilledError: a process was killed.
        TuneError: another process has the storage, it cannot be used, it has the study with
            other settings, or no trial has a score.
    """
    with _locked(study.storage):
        opened_study = _open(study)
        # No process of an earlier start is alive any more: they end with the one that has the lock.
        for stale in opened_study.get_trials(states=(TrialState.RUNNING,)):
            opened_study.tell(stale.number, state=TrialState.FAIL)
        finished = len(opened_study.get_trials(states=FINISHED))
        if finished < trials:
            _run_processes(study, trials - finished, processes, (seed, finished))
        ended = opened_study.get_trials()
        counts = {
            state.name.lower(): sum(trial.state is state for trial in ended)
            for state in (*FINISHED, TrialState.FAIL)
        }
        if not counts["complete"]:
            raise TuneError(f"none of the {len(ended)} trials has a score")
        best = opened_study.best_trial
        assert best.value is not None
        config = propose(study.config, study.searched, FixedTrial(best.params))
        return Best(best.number, best.value, config, counts)


@contextmanager
def _locked(storage: Path) -> Iterator[None]:
    """Keep every other `tune` out of a storage."""
    try:
        storage.touch()  # an empty file is an empty database
        # SQLite's own locks are of another kind (fcntl), which this one (flock) does not touch.
        with opened(storage) as descriptor:
            try_lock(descriptor)
            yield
    except BlockingIOError as error:
        raise TuneError(f"{storage} is in use: another process tunes in it") from error


def _load(study: Study, sampler: optuna.samplers.BaseSampler | None = None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{study.storage.absolute()}",
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


def _open(study: Study) -> optuna.Study:
    """Load a study, or begin it.

    Raises:
        TuneError: the storage cannot be used, or has the study with other settings.
    """
    if set("?{}") & set(str(study.storage.absolute())):
        raise TuneError(f"{study.storage}: a path with ?, {{ or }} cannot be a storage")
    try:
        found = _load(study)
    except (SQLAlchemyError, RuntimeError, optuna.exceptions.OptunaError) as error:
        raise TuneError(f"{study.storage} cannot be used: {first_line(error)}") from error
    settings = study.settings()
    stored = found.user_attrs.get("settings", settings)
    if stored != settings:
        names = (name for name in settings if stored.get(name) != settings[name])
        raise TuneError(
            f"the study {study.name} in {study.storage} has another value of {', '.join(names)}: "
            "give the new study another --name"
        )
    found.set_user_attr("settings", settings)
    return found


def _run_processes(study: Study, trials: int, processes: int, seeds: tuple[int, ...]) -> None:
    """Run trials in processes of their own, and end with all of them."""
    context = multiprocessing.get_context("spawn")  # TensorFlow does not outlive a fork
    left = context.Semaphore(trials)
    workers: list[BaseProcess] = [
        context.Process(target=_work, args=(study, left, (*seeds, index)))
        for index in range(min(processes, trials))
    ]
    try:
        # A terminal sends Ctrl-C to all of them: they inherit that it is ignored, and are ended.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        for worker in workers:
            worker.start()
        signal.signal(signal.SIGINT, handler)
        running = list(workers)
        while running:
            wait([worker.sentinel for worker in running])
            for worker in [one for one in running if not one.is_alive()]:
                running.remove(worker)
                assert worker.exitcode is not None
                if worker.exitcode < 0:
                    raise KilledError(f"a process was ended by signal {-worker.exitcode}")
                if worker.exitcode > 0:
                    sys.exit(worker.exitcode)  # it has said why
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()


def _work(study: Study, left: Semaphore, seeds: tuple[int, ...]) -> None:
    """Run trials while any are left: one of the processes of a study."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with many_imports():
        from training.trial import score
    # Other numbers in every process and after every start, or all would propose the same.
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    loaded = _load(study, optuna.samplers.TPESampler(seed=seed))
    try:
        while left.acquire(block=False):
            loaded.optimize(
                lambda trial: score(trial, study.config, study.searched, study.seeds),
                n_trials=1,
                callbacks=[_report],
            )
    except TrainingError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_status)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _report(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    if trial.state is TrialState.COMPLETE:
        click.echo(f"trial {trial.number}: score {trial.value:.1f}", err=True)
    else:
        reason = trial.user_attrs.get("reason", "worse than others")
        click.echo(f"trial {trial.number}: pruned, {reason}", err=True)
