"""Run the trials that a study still lacks, in several processes."""

import signal
import sys
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Semaphore
from typing import TYPE_CHECKING, NamedTuple

import click
import numpy as np
import optuna
from optuna.trial import FixedTrial, TrialState

from training.config import TrainingConfig
from training.errors import TrainingError
from training.options import many_imports
from training.processes import CONTEXT, end_with_parent, without_signals
from training.search import propose
from training.study import Study, begin, errors_of_storage, load, locked

if TYPE_CHECKING:
    from training.ray_cluster import Cluster

# The code compiled for a trial, some 15 MB, stays in memory until the process ends.
TRIALS_OF_A_PROCESS = 50
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class StudyFailedError(TrainingError):
    """A process has ended before its trial, or no trial has a score; the message says why."""

    exit_status = 1


class Best(NamedTuple):
    """The best trial of a study."""

    number: int
    score: float
    config: TrainingConfig
    counts: dict[str, int]  # of all trials, by how they ended


def tune(
    study: Study, trials: int, processes: int, seed: int, cluster: "Cluster | None" = None
) -> Best:
    """Run trials until a study has as many as wanted, and return the best.

    The best has the highest `training.trial.score`. Trials are pruned by Optuna's median rule. The
    seed does not make a study reproducible: what is proposed depends on which trials were stored
    by then.

    Args:
        study: what to search.
        trials: how many in all, including those that are stored already.
        processes: how many trials at a time, without a cluster.
        seed: of the sampler.
        cluster: of Ray, to run a trial on each of its processors.

    Raises:
        StudyFailedError: a process has ended before its trial, or no trial has a score.
        StudyError: another process has the storage, it cannot be used, or it has the study with
            other settings.
        StorageError: the storage cannot be used any more.
    """
    with locked(study.storage), errors_of_storage(study):
        stored = begin(study)
        finished = len(stored.get_trials(states=FINISHED))
        while finished < trials:
            if cluster is None:
                _run_processes(study, trials - finished, processes, (seed, finished))
            else:
                _run_on(cluster, study, trials - finished, (seed, finished))
            before, finished = finished, len(stored.get_trials(states=FINISHED))
            if finished == before:  # as where an environment ends its process, with status 0
                raise StudyFailedError("the processes ended without a trial")
        ended = stored.get_trials()
        counts = {
            state.name.lower(): sum(trial.state is state for trial in ended)
            for state in (*FINISHED, TrialState.FAIL)
        }
        if not counts["complete"]:
            reason = ended[-1].user_attrs.get("reason", "all were pruned")
            raise StudyFailedError(f"no trial has a score: {reason}")
        best = stored.best_trial
        assert best.value is not None
        config = propose(study.config, study.searched, FixedTrial(best.params))
        return Best(best.number, best.value, config, counts)


def _run_on(cluster: "Cluster", study: Study, trials: int, seeds: tuple[int, ...]) -> None:
    """Run trials on a cluster."""
    with many_imports():
        from training.ray_tune import run_trials
    run_trials(cluster, study, load(study, _sampler(seeds)), trials, _report)


def _sampler(seeds: tuple[int, ...]) -> optuna.samplers.BaseSampler:
    # A different seed in every process and after every start, or all would propose the same.
    return optuna.samplers.TPESampler(seed=int(np.random.SeedSequence(seeds).generate_state(1)[0]))


def _run_processes(study: Study, trials: int, processes: int, seeds: tuple[int, ...]) -> None:
    """Run the trials that are left, or as many as the processes may; wait for all to end."""
    left = CONTEXT.Semaphore(trials)
    workers: list[BaseProcess] = [
        CONTEXT.Process(target=_work, args=(study, left, (*seeds, index)))
        for index in range(min(processes, trials))
    ]
    try:
        with without_signals(signal.SIGINT):
            for worker in workers:
                worker.start()
        running = list(workers)
        while running:
            wait([worker.sentinel for worker in running])
            for worker in [one for one in running if not one.is_alive()]:
                running.remove(worker)
                assert worker.exitcode is not None
                if worker.exitcode < 0:
                    raise StudyFailedError(f"a process was ended by signal {-worker.exitcode}")
                if worker.exitcode > 0:
                    sys.exit(worker.exitcode)  # it has printed why
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()


def _work(study: Study, left: Semaphore, seeds: tuple[int, ...]) -> None:
    """Run one of a study's processes: trials while any are left, up to its limit."""
    end_with_parent()
    with many_imports():
        from training.trial import score
    try:
        with errors_of_storage(study):
            loaded = load(study, _sampler(seeds))
            for _ in range(TRIALS_OF_A_PROCESS):
                if not left.acquire(block=False):
                    return
                loaded.optimize(
                    lambda trial: score(trial, study.config, study.searched, study.seeds),
                    n_trials=1,
                    callbacks=[_report],
                )
    except TrainingError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_status)


def _report(_: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    if trial.state is TrialState.COMPLETE:
        click.echo(f"trial {trial.number}: score {trial.value:.1f}", err=True)
    else:
        reason = trial.user_attrs.get("reason", "worse than others")
        click.echo(f"trial {trial.number}: pruned, {reason}", err=True)
