"""What changes while a run learns, and what the run reports about it."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from training.evaluation import Evaluation
from training.learner import Losses
from training.model import ActorCritic, Policy
from training.normalization import Moments, RewardScale
from training.rollout import EnvState
from training.selection import Candidate
from training.types import FloatArray


class Progress(NamedTuple):
    """Counts, metrics and evaluations of one update."""

    update: int  # from 1
    env_steps: int
    episodes: int
    running_return: float  # exponential moving average of episode returns, from 0
    learning_rate: float
    losses: Losses
    explained_variance: float
    sampled: Evaluation | None  # where this update was followed by an evaluation
    greedy: Evaluation | None  # where the sampled one reached the threshold


class Start(NamedTuple):
    """What a run begins with."""

    weights: ActorCritic
    observation_moments: Moments  # [O]


class TrainingResult(NamedTuple):
    """The policy that a run chose, and its evaluations on fresh episodes."""

    policy: Policy
    solved: bool  # both evaluations reach the threshold, if there is one
    greedy: Evaluation
    sampled: Evaluation
    endurance: Evaluation | None  # see `Candidate`


@dataclass(slots=True)
class TrainingState:
    """The state of a run besides the learner's variables and the environments."""

    rng: np.random.Generator  # of everything but the environments, which have their own
    env_state: EnvState
    observation_moments: Moments  # [O], of the observations that training saw
    reward_scale: RewardScale
    observation_low: FloatArray  # [O], smallest of each number seen
    observation_high: FloatArray  # [O], largest
    sample_observations: FloatArray  # [S, O], some of those last seen
    update: int = 0
    unevaluated: Progress | None = None  # of this update, until its evaluation is over
    env_steps: int = 0
    evaluation_steps: int = 0  # environment steps of the evaluations
    episodes: int = 0
    running_return: float = 0.0
    best: Candidate | None = None
    evaluations_since_pass: int = 0
    result: TrainingResult | None = None
    seconds: float = 0.0
