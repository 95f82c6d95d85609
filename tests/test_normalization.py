"""Running moments against NumPy's of everything at once, and the reward scale by hand."""

import numpy as np

from training.normalization import Normalization, RewardScale, no_samples


def test_moments_of_parts_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(5_000, 1_000, (size, 3)).astype(np.float32) for size in (1, 7, 500)]
    moments = no_samples(3)
    for part in parts:
        moments = moments.including(part)
    whole = np.concatenate(parts).astype(np.float64)
    assert moments.samples == 508
    np.testing.assert_allclose(moments.mean, whole.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, whole.var(axis=0), rtol=1e-12)


def test_observations_are_standardised_and_clipped() -> None:
    rows = np.array([[1, 10], [3, 10]], np.float32)
    normalization = no_samples(2).including(rows).normalization()
    # the first number has mean 2 and standard deviation 1, the second never varied
    normalized = normalization(np.array([[1, 10], [2.5, 10], [99, 11]], np.float32), np)
    np.testing.assert_allclose(normalized, [[-1.0, 0.0], [0.5, 0.0], [10.0, 10.0]], atol=1e-6)
    assert normalized.dtype == np.float32


def test_a_large_offset_costs_no_precision_that_float32_has() -> None:
    rng = np.random.default_rng(0)
    plain = rng.uniform(-0.05, 0.05, (1_000, 1)).astype(np.float32)
    shifted = plain * 1_000 + 5_000
    ones = [no_samples(1).including(rows).normalization()(rows, np) for rows in (plain, shifted)]
    np.testing.assert_allclose(ones[0], ones[1], atol=1e-4)


def test_rewards_are_divided_by_the_deviation_of_the_discounted_return() -> None:
    # environment 0 earns 1, 1 and ends, then resets; environment 1 earns 2, 2, 2
    rewards = np.array([[1, 2], [1, 2], [0, 2]], np.float32)
    ended = np.array([[False, False], [True, False], [False, False]])
    valid = np.array([[True, True], [True, True], [False, True]])
    scale = RewardScale(no_samples(), np.zeros(2)).including(rewards, ended, valid, 0.5)
    # discounted returns: 1 and 1.5; 2, 3 and 3.5
    returns = np.array([1, 1.5, 2, 3, 3.5])
    np.testing.assert_allclose(scale.returns, [0, 3.5])
    np.testing.assert_allclose(scale.moments.variance, returns.var())
    np.testing.assert_allclose(scale.scale(rewards), rewards / returns.std(), rtol=1e-6)
    assert scale.scale(np.array([1e6, -1e6], np.float32)).tolist() == [10, -10]


def test_what_an_environment_earns_after_its_episode_is_not_in_the_scale() -> None:
    # Both earn 1 a step. Episodes of 1 and 3 steps; the first plays on, and earns 5, unlearned.
    rewards = np.array([[1, 1], [5, 1], [5, 1]], np.float32)
    ended = np.array([[True, False], [False, False], [False, True]])
    valid = np.array([[True, True], [False, True], [False, True]])
    scale = RewardScale(no_samples(), np.zeros(2)).including(rewards, ended, valid, 0.5)
    np.testing.assert_array_equal(scale.returns, [0, 0])
    np.testing.assert_allclose(scale.moments.variance, np.array([1, 1, 1.5, 1.75]).var())


def test_a_normalization_is_the_same_in_tensorflow() -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    normalization = Normalization(*rng.uniform(1, 2, (2, 4)).astype(np.float32))
    rows = rng.normal(0, 10, (50, 4)).astype(np.float32)
    np.testing.assert_array_equal(normalization(tf.constant(rows), tf), normalization(rows, np))
