"""How good a policy is: full episodes on the real Gymnasium environment."""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from training.envs import make_vector_env
from training.intervals import Bounds, betting_interval, bootstrap_interval, mean
from training.model import sample_actions
from training.types import DoubleArray, PolicyFunction


class ReturnBoundsError(ValueError):
    """A return is outside the bounds that were given for all returns."""


class Evaluation(NamedTuple):
    """Undiscounted returns of some episodes."""

    episodes: int
    mean: float
    standard_deviation: float  # of the sample, 0 for one episode
    minimum: float
    confidence_interval: Bounds  # 95% for the mean
    interval_method: Literal["betting", "bootstrap"] = "bootstrap"  # the latter is approximate


def evaluate(
    policy: PolicyFunction,
    env_id: str,
    *,
    episodes: int,
    deterministic: bool,
    rng: np.random.Generator,
    return_bounds: Bounds | None = None,
    max_episode_steps: int | None = None,
    reset_options: dict[str, float] | None = None,
    disturb: Callable[[VectorEnv, int], None] | None = None,
) -> Evaluation:
    """Play the first episode of each of `episodes` environments.

    Every environment contributes exactly one episode, so short ones are not counted more
    often than long ones.

    Args:
        policy: the policy.
        env_id: Gymnasium id.
        episodes: how many, at least 1.
        deterministic: take the most probable action; otherwise sample.
        rng: of the environments' seed and the sampled actions.
        return_bounds: the lowest and the highest possible return, where they are known.
        max_episode_steps: the time limit, if not the environment's own.
        reset_options: handed to the environment's reset.
        disturb: called before each step with the environment and the number of the step.

    Raises:
        ReturnBoundsError: a return is outside `return_bounds`.
    """
    env = make_vector_env(env_id, episodes, max_episode_steps)
    observations, _ = env.reset(seed=int(rng.integers(2**31)), options=reset_options)
    returns = np.zeros(episodes)
    running = np.ones(episodes, bool)
    for step in itertools.count():
        if not running.any():
            break
        if disturb is not None:
            disturb(env, step)
        logits, _ = policy(observations)
        if deterministic:
            actions = logits.argmax(axis=-1)
        else:
            actions = sample_actions(logits, rng.random(episodes))
        observations, rewards, terminated, truncated, _ = env.step(actions)
        returns += rewards * running
        running &= ~(terminated | truncated)
    env.close()
    return summarize(returns, return_bounds)


def summarize(returns: DoubleArray, bounds: Bounds | None) -> Evaluation:
    """Mean, spread and interval of episode returns `[E]`.

    Raises:
        ReturnBoundsError: one of them is outside the bounds.
    """
    if bounds is not None and not (bounds[0] <= returns.min() and returns.max() <= bounds[1]):
        wrong = returns.min() if returns.min() < bounds[0] else returns.max()
        raise ReturnBoundsError(
            f"an episode returned {wrong:g}, outside the bounds {bounds[0]:g} to {bounds[1]:g}"
        )
    return Evaluation(
        episodes=len(returns),
        mean=float(returns.mean()),
        standard_deviation=float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        minimum=float(returns.min()),
        confidence_interval=(
            bootstrap_interval(mean, returns)
            if bounds is None
            else betting_interval(returns, bounds)
        ),
        interval_method="bootstrap" if bounds is None else "betting",
    )
