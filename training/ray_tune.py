"""The trials of a study on a Ray cluster: proposed and judged here, trained there."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import ray
from optuna.trial import FrozenTrial, TrialState

from training.config import ConfigError, TrainingConfig
from training.finite import NotFiniteError
from training.ray_cluster import MAX_RETRIES, Cluster, result
from training.search import propose
from training.study import Study
from training.trial import scores_by_point


def run_trials(
    cluster: Cluster,
    study: Study,
    stored: optuna.Study,
    trials: int,
    report: Callable[[optuna.Study, FrozenTrial], None],
) -> None:
    """Run trials side by side, one per processor of a cluster.

    Args:
        cluster: where they are trained.
        study: what to search.
        stored: its storage, with the sampler that proposes.
        trials: how many.
        report: called with the study and each trial that has ended.

    Raises:
        TrainingError: as `training.trial.scores_by_point` does.
        WorkerError: a trial raised another error, or was lost too often.
    """
    # For each generator of references to scores: its trial, and the scores so far.
    running: dict[Any, tuple[optuna.Trial, list[float]]] = {}
    while trials > 0 or running:
        while trials > 0 and len(running) < cluster.processors:
            trials -= 1
            trial = stored.ask()
            try:
                config = propose(study.config, study.searched, trial)
            except ConfigError as error:
                report(stored, _pruned(stored, trial, str(error)))
            else:
                running[_train.remote(config, study.seeds)] = trial, []
        ready, _ = ray.wait(list(running), timeout=None) if running else ([], [])
        for generator in ready:
            ended = _judge(stored, generator, *running[generator])
            if ended is not None:
                del running[generator]
                report(stored, ended)


@ray.remote(num_cpus=1, max_retries=MAX_RETRIES)
def _train(config: TrainingConfig, seeds: int) -> Any:
    yield from scores_by_point(config, seeds)


def _judge(
    stored: optuna.Study, generator: Any, trial: optuna.Trial, scores: list[float]
) -> FrozenTrial | None:
    """Judge a trial by its next score; if that ends it, return the trial as stored."""
    try:
        scores.append(result(next(generator)))
    except StopIteration:
        return stored.tell(trial, float(np.mean(scores)))
    except NotFiniteError as error:
        return _pruned(stored, trial, str(error))
    trial.report(scores[-1], len(scores) - 1)
    if not trial.should_prune():
        return None
    ray.cancel(generator, force=True)
    return stored.tell(trial, state=TrialState.PRUNED)


def _pruned(stored: optuna.Study, trial: optuna.Trial, reason: str) -> FrozenTrial:
    trial.set_user_attr("reason", reason)
    return stored.tell(trial, state=TrialState.PRUNED)
