"""The policy card: what a version is, how it was trained and how well it performs."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from training.config import Environment, RunSettings
from training.envs import Description
from training.evaluation import Evaluation
from training.folder import provenance
from training.intervals import Bounds
from training.state import TrainingState
from training.types import FloatArray


class Seen(NamedTuple):
    """The range of the observations that a policy has seen."""

    low: FloatArray  # [O], smallest of each number
    high: FloatArray  # [O], largest


def policy_card(
    environment: Environment,
    described: Description,
    seen: Seen,
    *,
    reward_threshold: float | None,
    return_bounds: Bounds | None,
    solved: bool,
    evaluation: Mapping[str, Evaluation],
    robustness: Mapping[str, Evaluation],
    training: dict[str, Any] | None,
) -> dict[str, Any]:
    """Describe a policy in JSON values; `training` is null if it was learned elsewhere."""

    def to_json(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
        return {name: evaluation_to_json(one) for name, one in evaluations.items()}

    actions: dict[str, Any] = {"names": described.action_names}
    if described.action_start != 0:
        actions["start"] = described.action_start
    observed = evaluation["sampled"].histograms
    return {
        "environment": environment.id,
        "environment_options": {
            "kwargs": dict(environment.kwargs),
            "max_episode_steps": environment.max_episode_steps,
            "wrappers": list(environment.wrappers),
        },
        "observations": {
            "names": described.observation_names,
            "shape": [len(described.observation_names)],
            "low": [_finite_or_none(bound) for bound in described.low],
            "high": [_finite_or_none(bound) for bound in described.high],
            "seen_low": seen.low.tolist(),
            "seen_high": seen.high.tolist(),
            **({} if observed is None else {"histograms": observed._asdict()}),
        },
        "actions": actions,
        "solved": solved,
        "reward_threshold": reward_threshold,
        "return_bounds": None if return_bounds is None else list(return_bounds),
        "evaluation": to_json(evaluation),
        "robustness": to_json(robustness),
        "training": training,
        **provenance(),
    }


def training_section(settings: RunSettings, state: TrainingState) -> dict[str, Any]:
    """How a policy was trained, in JSON values."""
    return {
        "run_id": settings.run_id,
        "preset": settings.preset,
        "seed": settings.seed,
        "start_from": settings.start_from and "/".join(Path(settings.start_from).parts[-2:]),
        "config": asdict(settings.config),
        "env_steps": state.env_steps,
        "evaluation_steps": state.evaluation_steps,
        "episodes": state.episodes,
        "seconds": round(state.seconds, 3),
    }


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation in JSON values, without the histograms of its observations."""
    fields = evaluation._asdict()
    del fields["histograms"]
    return {**fields, "confidence_interval": list(evaluation.confidence_interval)}


def _finite_or_none(bound: np.floating) -> float | None:
    """JSON has no infinity: an unbounded side is null."""
    return float(bound) if np.isfinite(bound) else None
