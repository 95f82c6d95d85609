"""How good a policy is: full episodes on the real Gymnasium environment."""

import contextlib
import copy
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv

from training.config import Environment
from training.envs import describe, make_shares
from training.errors import StopRequestedError, TrainingError
from training.finite import finite_float32
from training.histograms import Histograms, KeptSteps, histograms
from training.intervals import Bounds, betting_interval, bootstrap_interval, mean
from training.model import sample_actions
from training.shares import Shares
from training.types import DoubleArray, IntArray, PolicyFunction

MAX_STEPS = 10_000  # of an episode without a time limit
ROUNDING = 1e-6  # of a return, relative to the larger bound; enough for float32 rewards


class ReturnBoundsError(TrainingError):
    """A return is outside the given bounds."""


class Evaluation(NamedTuple):
    """Undiscounted returns of some episodes."""

    episodes: int
    mean: float
    standard_deviation: float  # of the sample, 0 for one episode
    minimum: float
    confidence_interval: Bounds  # 95% for the mean
    interval_method: Literal["betting", "bootstrap"] = "bootstrap"  # the latter is approximate
    steps: int = 0  # of the environment, in all episodes together
    histograms: Histograms | None = None  # of the observations, if requested


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
    with_histograms: bool = False,
    envs: Shares | None = None,
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
        rng: draws the environments' seed and the sampled actions.
        return_bounds: the lowest and the highest possible return, where they are known.
        reset_options: handed to the environment's reset.
        disturb: called before each step with the environment and the number of the step.
        until_one_ends: stop as soon as one episode has ended; then only `steps` is meaningful.
        with_histograms: keep observations, and return their histograms.
        envs: `episodes` existing environments, made with `one_episode` (see `make_shares`).
        stop_requested: called before each step; true ends the evaluation.

    Raises:
        NotFiniteError: an observation or a reward is NaN or infinite.
        ReturnBoundsError: a return is outside `return_bounds`.
        StopRequestedError: a stop was requested.
    """
    limit = environment.max_episode_steps or describe(environment).max_episode_steps or MAX_STEPS
    with contextlib.ExitStack() as stack:
        if envs is None:
            envs = make_shares(environment, episodes, one_episode=True)
            stack.enter_context(contextlib.closing(envs))
        seed = int(rng.integers(2**31))
        uniforms = None if deterministic else copy.deepcopy(rng)
        how = reset_options, limit, disturb, until_one_ends, with_histograms
        parts = envs.call(
            _play, policy, episodes, seed, uniforms, *how, stop_requested=stop_requested
        )
    all_returns, all_steps, kept = zip(*parts, strict=True)
    returns, steps = np.concatenate(all_returns), np.concatenate(all_steps)
    if not deterministic:
        rng.random((steps.max(), episodes))  # every share drew these from a copy
    rows = int(steps.sum())
    observed = histograms(kept, episodes, rows) if with_histograms else None
    return summarize(returns, return_bounds)._replace(steps=rows, histograms=observed)


def _play(
    env: VectorEnv,
    own: slice,
    policy: PolicyFunction,
    episodes: int,
    seed: int,
    uniforms: np.random.Generator | None,
    reset_options: dict[str, float] | None,
    limit: int,
    disturb: Callable[[VectorEnv, int], None] | None,
    until_one_ends: bool,
    keeps_observations: bool,
    stop_requested: Callable[[], bool],
) -> tuple[DoubleArray, IntArray, KeptSteps]:
    """Play a share's first episodes; return their returns, steps and kept observations."""
    returns, steps = np.zeros(env.num_envs), np.zeros(env.num_envs, np.int64)
    running, kept = np.ones(env.num_envs, bool), KeptSteps(episodes, own.start)
    observations, _ = env.reset(seed=seed + own.start, options=reset_options)
    rows = np.zeros(
        (episodes, *observations.shape[1:]), np.float32
    )  # of all shares, for the reason given in `training.rollout`
    for step in range(limit):
        if stop_requested():
            raise StopRequestedError
        if disturb is not None:
            disturb(env, step)
        when = f"step {step} of an evaluation"
        rows[own] = finite_float32(observations, "an observation", when, own.start)
        if keeps_observations:
            kept.add(rows[own], running)
        logits, _ = policy(rows)
        if uniforms is None:
            actions = logits.argmax(axis=-1)
        else:
            actions = sample_actions(logits, uniforms.random(episodes))
        observations, rewards, terminated, truncated, _ = env.step(actions[own])
        finite_float32(rewards, "the reward", f"step {step + 1} of an evaluation", own.start)
        returns += rewards * running
        steps += running
        running &= ~(terminated | truncated)
        if not running.any() or (until_one_ends and not running.all()):
            break
    return returns, steps, kept


def summarize(returns: DoubleArray, bounds: Bounds | None) -> Evaluation:
    """Mean, spread and interval of episode returns `[E]`.

    A return that only rounding puts outside the bounds counts as the bound. The mean is rounded
    once and kept in the range of the returns: equal returns reach any threshold that each reaches.

    Raises:
        ReturnBoundsError: one of them is outside the bounds.
    """
    if bounds is not None:
        inside = np.clip(returns, *bounds)
        outside = np.abs(returns - inside)
        if outside.max() > ROUNDING * max(map(abs, bounds)):
            raise ReturnBoundsError(
                f"an episode returned {returns[outside.argmax()]:.9g}, outside the bounds "
                f"{bounds[0]:g} to {bounds[1]:g}"
            )
        returns = inside
    return Evaluation(
        episodes=len(returns),
        mean=float(np.clip(math.fsum(returns) / len(returns), returns.min(), returns.max())),
        standard_deviation=float(returns.std(ddof=1)) if len(returns) > 1 else 0.0,
        minimum=float(returns.min()),
        confidence_interval=(
            bootstrap_interval(mean, returns)
            if bounds is None
            else betting_interval(returns, bounds)
        ),
        interval_method="bootstrap" if bounds is None else "betting",
    )
