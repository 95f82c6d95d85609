"""The network and its sampling."""

import dataclasses
from typing import Literal

import numpy as np
import pytest
import tensorflow as tf

from tests.runs import with_units
from training.config import Activation
from training.model import (
    ActorCritic,
    Dense,
    Policy,
    activation_function,
    initialize,
    log_softmax,
    sample_actions,
)
from training.normalization import Normalization


def array(*samples: object) -> np.ndarray:
    return np.array(samples, np.float32)


def test_forward_pass_by_hand() -> None:
    weights = ActorCritic(
        hidden=(Dense(array([1], [2]), array(0.5)),),
        critic_hidden=(),
        actor=Dense(array([1, -1]), array(0, 1)),
        critic=Dense(array([3]), array(-1)),
    )
    logits, values = Policy(weights, "linear")(array([1, 1], [0, 0]))
    # features: 1 + 2 + 0.5 = 3.5 and 0.5
    np.testing.assert_allclose(logits, [[3.5, -2.5], [0.5, 0.5]])
    np.testing.assert_allclose(values, [9.5, 0.5])


def test_separate_trunks_and_a_normalization_by_hand() -> None:
    weights = ActorCritic(
        hidden=(Dense(array([1]), array(0)), Dense(array([2]), array(-1))),
        critic_hidden=(Dense(array([-1]), array(0)), Dense(array([1]), array(4))),
        actor=Dense(array([1, -1]), array(0, 0)),
        critic=Dense(array([10]), array(0)),
    )
    policy = Policy(weights, "relu", Normalization(array(5), array(0.5)))
    # normalised: 1, -1.5 and 10, where 100 is clipped; the actor's trunk gives 1, 0 and 19,
    # the critic's 4, 5.5 and 4
    logits, values = policy(array([7], [2], [205]))
    np.testing.assert_allclose(logits, [[1, -1], [0, 0], [19, -19]])
    np.testing.assert_allclose(values, [40, 55, 40])


@pytest.mark.parametrize("activation", ["tanh", "relu", "linear"])
@pytest.mark.parametrize("trunk", ["shared", "separate"])
def test_numpy_and_tensorflow_agree(
    activation: Activation, trunk: Literal["shared", "separate"]
) -> None:
    config = dataclasses.replace(with_units(16, 8), trunk=trunk)
    weights = initialize(np.random.default_rng(1), 4, 3, config)
    observations = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    variables = tf.nest.map_structure(tf.Variable, weights)
    in_tensorflow = variables(tf.constant(observations), activation_function(activation, tf))
    in_numpy = Policy(weights, activation)(observations)
    for computed, expected in zip(in_tensorflow, in_numpy, strict=True):
        np.testing.assert_allclose(computed.numpy(), expected, atol=1e-5)


def test_initial_hidden_kernel_is_orthogonal_and_policy_nearly_uniform() -> None:
    weights = initialize(np.random.default_rng(0), 4, 2, with_units(64))
    rows = weights.hidden[0].kernel
    np.testing.assert_allclose(rows @ rows.T, 2 * np.eye(4), atol=1e-5)  # gain sqrt(2)
    logits, _ = Policy(weights, "tanh")(np.ones((1, 4), np.float32))
    assert np.abs(logits).max() < 0.1


def test_log_softmax_by_hand_even_of_large_logits() -> None:
    np.testing.assert_allclose(
        log_softmax(array([0, np.log(3)], [1000, 1000])),
        np.log([[0.25, 0.75], [0.5, 0.5]]),
        atol=1e-6,
    )


def test_sampling_inverts_the_cumulative_distribution() -> None:
    logits = np.tile(np.log(array([0.2, 0.3, 0.5])), (5, 1))
    uniforms = array(0.0, 0.19, 0.21, 0.49, 0.51)
    assert sample_actions(logits, uniforms).tolist() == [0, 0, 1, 1, 2]


def test_a_uniform_on_the_border_takes_the_next_action() -> None:
    # [0, 1/2) is the first action and [1/2, 1) the second: 1/2 itself is exact in float32
    assert sample_actions(array([0, 0]), array(0.5)).tolist() == [1]
    # and exp(-200) is 0: an action without probability is not taken, not even for 0
    assert sample_actions(array([-200, 0]), array(0.0)).tolist() == [1]


def test_sampling_never_leaves_the_actions() -> None:
    logits = array([30, -30, -30], [-30, -30, 30])
    largest = np.full(2, np.nextafter(np.float32(1), np.float32(0)))
    assert sample_actions(logits, largest).tolist() == [0, 2]
