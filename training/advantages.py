"""Advantages and returns of a rollout, and the batch that is learned from.

Pure functions on NumPy arrays.
"""

import numpy as np

from training.config import TrainingConfig
from training.learner import Batch
from training.model import Policy, log_softmax
from training.rollout import Rollout
from training.types import BoolArray, FloatArray

# Rounding error of a sum of a few dozen float32 numbers, relative to the largest.
ROUNDING = 16 * np.finfo(np.float32).eps


def generalized_advantages(
    rewards: FloatArray,
    values: FloatArray,
    terminated: BoolArray,
    truncated: BoolArray,
    *,
    gamma: float,
    gae_lambda: float,
) -> FloatArray:
    """Generalized advantage estimation (Schulman et al. 2016, equation 16).

    After termination the value is 0. A truncated episode would have continued, so its final
    observation is bootstrapped from (Pardo et al. 2018). The recursion stops at both, so that
    no episode changes the advantages of the one before it.

    Args:
        rewards: `[T, N]`.
        terminated: `[T, N]`.
        truncated: `[T, N]`.
        values: `[T + 1, N]`, row `t + 1` of the observation that followed step `t`.
        gamma: discount per step.
        gae_lambda: 0 gives one-step TD errors, 1 Monte-Carlo returns minus the values.

    Returns:
        Advantages `[T, N]`.
    """
    td_errors = rewards + gamma * values[1:] * ~terminated - values[:-1]
    decay = np.float32(gamma * gae_lambda) * ~(terminated | truncated)
    advantages = np.empty_like(rewards)
    advantage = np.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        advantage = td_errors[t] + decay[t] * advantage
        advantages[t] = advantage
    return advantages


def monte_carlo_returns(rewards: FloatArray, ended: BoolArray, *, gamma: float) -> FloatArray:
    """Discounted sum of the rewards from each step to its episode's end.

    Args:
        rewards: `[T, N]`.
        ended: `[T, N]`, true at the last step of an episode.
        gamma: discount per step.

    Returns:
        Returns `[T, N]`. An episode that continues after the rollout counts as ending there.
    """
    returns = np.empty_like(rewards)
    discounted = np.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        discounted = rewards[t] + np.float32(gamma) * ~ended[t] * discounted
        returns[t] = discounted
    return returns


def standardize(samples: FloatArray, valid: BoolArray) -> FloatArray:
    """Shift and scale to mean 0 and standard deviation 1, both taken over the valid samples."""
    chosen = samples[valid]
    standardized: FloatArray = (samples - chosen.mean()) / (chosen.std() + np.float32(1e-8))
    return standardized


def explained_variance(values: FloatArray, returns: FloatArray, valid: BoolArray) -> float:
    """Share of the returns' variance that the values explain: 1 is ideal, 0 as good as a constant.

    Args:
        values: `[T, N]`, predicted.
        returns: `[T, N]`, their targets.
        valid: `[T, N]`, which samples count.

    Returns:
        At most 1; 0 where the returns are constant up to rounding error, relative to the largest
        return or value.
    """
    targets, errors = returns[valid], (returns - values)[valid]
    size = max(np.abs(targets).max(), np.abs(values[valid]).max())
    if targets.std(dtype=np.float64) <= ROUNDING * size:
        return 0.0
    return float(1 - errors.var(dtype=np.float64) / targets.var(dtype=np.float64))


def make_batch(config: TrainingConfig, policy: Policy, rollout: Rollout) -> tuple[Batch, float]:
    """Estimate advantages and returns of a rollout and flatten it to samples.

    Returns:
        The samples, their observations normalised, and the share of the returns' variance that
        the critic explains.
    """
    flat = rollout.observations.reshape(-1, rollout.observations.shape[-1])
    flat_logits, flat_values = policy(flat)
    values = flat_values.reshape(rollout.observations.shape[:2])
    samples = config.rollout_size
    log_probs = log_softmax(flat_logits[:samples])
    actions = rollout.actions.reshape(samples)

    if config.estimator == "monte_carlo":
        ended = rollout.terminated | rollout.truncated
        returns = standardize(
            monte_carlo_returns(rollout.rewards, ended, gamma=config.gamma), rollout.valid
        )
        advantages = returns - values[:-1]
    else:
        advantages = generalized_advantages(
            rollout.rewards,
            values,
            rollout.terminated,
            rollout.truncated,
            gamma=config.gamma,
            gae_lambda=config.gae_lambda,
        )
        returns = advantages + values[:-1]
    variance_explained = explained_variance(values[:-1], returns, rollout.valid)
    if config.normalize_advantages:
        advantages = standardize(advantages, rollout.valid)
    batch = Batch(
        observations=policy.normalize(flat[:samples]),
        actions=actions,
        log_probs=log_probs[np.arange(samples), actions],
        advantages=advantages.reshape(samples),
        returns=returns.reshape(samples),
        valid=rollout.valid.reshape(samples).astype(np.float32),
    )
    return batch, variance_explained
