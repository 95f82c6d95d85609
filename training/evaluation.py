"""How good a policy is: full episodes on the real Gymnasium environment."""

import contextlib
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from training.config import Environment
from training.envs import describe, make_vector_env
from training.errors import TrainingError
from training.finite import finite_observations, require_finite
from training.intervals import Bounds, betting_interval, bootstrap_interval, mean
from training.model import sample_actions
from training.types import DoubleArray, PolicyFunction

MAX_STEPS = 10_000  # of an episode without a time limit


class ReturnBoundsError(TrainingError):
    """A return is outside the bounds that were given for all returns."""


class StopRequestedError(Exception):
    """An evaluation was not finished, because a stop was requested."""


class Evaluation(NamedTuple):
    """Undiscounted returns of some episodes."""

    episodes: int
    mean: float
    standard_deviation: float  # of the sample, 0 for one episode
    minimum: float
    confidence_interval: Bounds  # 95% for the mean
    interval_method: Literal["betting", "bootstrap"] = "bootstrap"  # the latter is approximate
    steps: int = 0  # of the environment, in all episodes together


def evaluate(
    policy: PolicyFunction,
    environment: Environment,
    *,
    episodes: int,
    deterministic: bool,
    rng: np.random.Generator,
    return_bounds: Bounds | None = None,
    reset_options: dict[str, float] | None = None,
    disturb: Callable[[VectorEnv, int], None] | None = None,
    until_one_ends: bool = False,
    env: VectorEnv | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> Evaluation:
    """Play the first episode of each of `episodes` environments.

    Every environment contributes exactly one episode, so short ones are not counted more
    often than long ones. An episode without a time limit ends after `MAX_STEPS` steps.

    Args:
        policy: the policy.
        environment: what it acts in.
        episodes: how many, at least 1.
        deterministic: take the most probable action; otherwise sample.
        rng: of the environments' seed and the sampled actions.
        return_bounds: the lowest and the highest possible return, where they are known.
        reset_options: handed to the environment's reset.
        disturb: called before each step with the environment and the number of the step.
        until_one_ends: stop as soon as an episode has ended: then only the steps are known.
        env: `episodes` environments of one episode (see `make_vector_env`) that are there already.
        stop_requested: asked before each step.

    Raises:
        NotFiniteError: an observation or a reward is NaN or infinite.
        ReturnBoundsError: a return is outside `return_bounds`.
        StopRequestedError: a stop was requested.
    """
    limit = environment.max_episode_steps or describe(environment).max_episode_steps or MAX_STEPS
    returns, steps = np.zeros(episodes), 0
    running = np.ones(episodes, bool)
    with contextlib.ExitStack() as stack:
        if env is None:
            env = make_vector_env(environment, episodes, one_episode=True)
            stack.enter_context(contextlib.closing(env))
        seed = int(rng.integers(2**31))
        observations, _ = env.reset(seed=seed, options=reset_options)
        for step in range(limit):
            if stop_requested():
                raise StopRequestedError
            if disturb is not None:
                disturb(env, step)
            logits, _ = policy(finite_observations(observations, f"step {step} of an evaluation"))
            if deterministic:
                actions = logits.argmax(axis=-1)
            else:
                actions = sample_actions(logits, rng.random(episodes))
            observations, rewards, terminated, truncated, _ = env.step(actions)
            require_finite(rewards, "the reward", f"step {step + 1} of an evaluation")
            returns += rewards * running
            steps += int(running.sum())
            running &= ~(terminated | truncated)
            if not running.any() or (until_one_ends and not running.all()):
                break
    return summarize(returns, return_bounds)._replace(steps=steps)


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
