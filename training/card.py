"""The policy card: what a version is, how it was trained and how well it performs."""

from dataclasses import asdict
from typing import Any

import gymnasium as gym
import numpy as np

from training.config import RunSettings
from training.envs import observation_bounds
from training.evaluation import Evaluation
from training.folder import provenance
from training.robustness import robustness
from training.trainer import Trainer, TrainingResult

# Gymnasium's spaces carry no names; these are the tables of its documentation.
_NAMES: dict[str, tuple[list[str], list[str]]] = {
    "CartPole": (
        ["cart_position", "cart_velocity", "pole_angle", "pole_angular_velocity"],
        ["push_left", "push_right"],
    ),
    "Acrobot": (
        [
            "cos_theta1",
            "sin_theta1",
            "cos_theta2",
            "sin_theta2",
            "theta1_angular_velocity",
            "theta2_angular_velocity",
        ],
        ["torque_minus_1", "torque_0", "torque_plus_1"],
    ),
}


def policy_card(settings: RunSettings, trainer: Trainer, result: TrainingResult) -> dict[str, Any]:
    """Describe a trained policy in JSON values."""
    config, state = settings.config, trainer.state
    observation_names, action_names = names(
        config.env_id,
        result.policy.observation_size,
        result.policy.num_actions,
    )
    low, high = observation_bounds(state.env)
    # Its own generator: a resumed run must write the same card as one that was never stopped.
    tested = robustness(result.policy, config.env_id, np.random.default_rng(settings.seed))
    return {
        "environment": config.env_id,
        "observations": {
            "names": observation_names,
            "shape": [len(observation_names)],
            "low": [_finite_or_none(bound) for bound in low],
            "high": [_finite_or_none(bound) for bound in high],
            "seen_low": state.observation_low.tolist(),
            "seen_high": state.observation_high.tolist(),
        },
        "actions": {"names": action_names},
        "solved": result.solved,
        "reward_threshold": trainer.reward_threshold,
        "evaluation": {
            "greedy": evaluation_to_json(result.greedy),
            "sampled": evaluation_to_json(result.sampled),
        },
        "robustness": {name: evaluation_to_json(result) for name, result in tested.items()},
        "training": {
            "run_id": settings.run_id,
            "preset": settings.preset,
            "seed": settings.seed,
            "config": asdict(config),
            "env_steps": state.env_steps,
            "episodes": state.episodes,
            "seconds": round(state.seconds, 3),
        },
        **provenance(),
    }


def evaluation_to_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation in JSON values."""
    return {
        **evaluation._asdict(),
        "confidence_interval": list(evaluation.confidence_interval),
    }


def names(env_id: str, observation_size: int, num_actions: int) -> tuple[list[str], list[str]]:
    """Names of the observations and actions; numbered for environments without a table here."""
    known = _NAMES.get(gym.spec(env_id).name)
    if known is not None:
        return known
    return (
        [f"observation_{i}" for i in range(observation_size)],
        [f"action_{i}" for i in range(num_actions)],
    )


def _finite_or_none(bound: np.float32) -> float | None:
    """JSON has no infinity: an unbounded side is null."""
    return float(bound) if np.isfinite(bound) else None
