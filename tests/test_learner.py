"""Losses and the update step against values worked out by hand."""

import dataclasses
from typing import Literal

import numpy as np
import pytest
import tensorflow as tf

from tests.runs import with_units
from training.config import TrainingConfig
from training.learner import Batch, Learner, Losses, losses
from training.model import ActorCritic, initialize, log_softmax
from training.presets import PRESETS

PPO = PRESETS["ppo"]
TINY = dataclasses.replace(
    PPO, num_envs=1, num_steps=4, num_epochs=1, num_minibatches=1, hidden_units=(3,)
)


def batch(**changes: object) -> Batch:
    """Two samples; the policy says 3/4 and 1/4 for both, the critic 2 and 5."""
    fields: dict[str, object] = {
        "observations": tf.zeros([2, 4]),
        "actions": tf.constant([0, 1], tf.int64),
        "log_probs": tf.math.log([0.5, 0.5]),
        "advantages": tf.constant([1.0, 1.0]),
        "returns": tf.constant([1.5, 8.0]),
        "valid": tf.constant([1.0, 1.0]),
    }
    return Batch(**(fields | changes))


LOGITS = tf.math.log([[0.75, 0.75], [0.25, 0.25]])  # [A, B]
VALUES = tf.constant([2.0, 5.0])


def of(config: TrainingConfig, samples: Batch) -> Losses:
    return Losses(*(float(part) for part in losses(config, LOGITS, VALUES, samples)))


def test_ppo_losses_by_hand() -> None:
    result = of(PPO, batch())
    # ratios 1.5 and 0.5: the first is clipped to 1.2, of the second the minimum is kept
    assert result.policy_loss == pytest.approx(-(1.2 + 0.5) / 2)
    assert result.value_loss == pytest.approx((0.5 * 0.5**2 + 0.5 * 3**2) / 2)
    assert result.entropy == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    assert result.clip_fraction == 1.0
    assert result.approx_kl == pytest.approx(
        ((1.5 - 1 - np.log(1.5)) + (0.5 - 1 - np.log(0.5))) / 2
    )


def test_ppo_takes_the_pessimistic_side_of_a_negative_advantage() -> None:
    result = of(PPO, batch(advantages=tf.constant([-1.0, -1.0])))
    assert result.policy_loss == pytest.approx((1.5 + 0.8) / 2)


def test_plain_policy_gradient_by_hand() -> None:
    result = of(PRESETS["a2c"], batch(advantages=tf.constant([2.0, -4.0])))
    assert result.policy_loss == pytest.approx(-(2 * np.log(0.75) - 4 * np.log(0.25)) / 2)
    assert result.clip_fraction == 0.0


def test_notebook_losses_by_hand() -> None:
    result = of(PRESETS["notebook"], batch())
    # advantages are returns - values: -0.5 and 3; Huber: 0.125 and 3 - 0.5; sums, no means
    assert result.policy_loss == pytest.approx(0.5 * np.log(0.75) - 3 * np.log(0.25))
    assert result.value_loss == pytest.approx(0.125 + 2.5)
    # only the losses are sums
    assert result.entropy == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))


def test_the_critic_learns_from_the_policy_loss_in_the_notebook_only() -> None:
    def gradient(config: TrainingConfig) -> list[float] | None:
        with tf.GradientTape() as tape:
            tape.watch(VALUES)
            loss = losses(config, LOGITS, VALUES, batch()).policy_loss
        found = tape.gradient(loss, VALUES)
        return None if found is None else found.numpy().tolist()

    # the notebook's loss is -sum(log_prob * (return - value))
    assert gradient(PRESETS["notebook"]) == pytest.approx([np.log(0.75), np.log(0.25)])
    assert gradient(PRESETS["a2c"]) is None
    assert gradient(PPO) is None


@pytest.mark.parametrize("preset", ["ppo", "a2c", "notebook"])
def test_an_invalid_sample_changes_no_loss(preset: str) -> None:
    config = PRESETS[preset]  # type: ignore[index]  # parametrize gives a str
    valid = tf.constant([1.0, 0.0])
    changed = batch(
        valid=valid,
        actions=tf.constant([0, 0], tf.int64),
        advantages=tf.constant([1.0, 99.0]),
        returns=tf.constant([1.5, -99.0]),
        log_probs=tf.math.log([0.5, 0.01]),
    )
    assert of(config, changed) == of(config, batch(valid=valid))


def tiny_samples() -> Batch:
    rng = np.random.default_rng(0)
    return Batch(
        observations=rng.normal(size=(4, 2)).astype(np.float32),
        actions=np.array([0, 1, 1, 0]),
        log_probs=np.full(4, np.log(0.5), np.float32),
        advantages=np.array([1, -1, 2, 0.5], np.float32),
        returns=np.array([3, 1, -2, 0], np.float32),
        valid=np.ones(4, np.float32),
    )


def updated(config: TrainingConfig, samples: Batch) -> ActorCritic:
    learner = Learner(config, initialize(np.random.default_rng(3), 2, 2, config))
    learner.update(samples, config.learning_rate, np.random.default_rng(4))
    return learner.numpy_weights()


def test_the_first_adam_step_moves_every_weight_by_the_learning_rate() -> None:
    # with bias correction the first step is rate * g / (|g| + epsilon)
    config = dataclasses.replace(TINY, learning_rate=0.25, adam_epsilon=1e-12, max_grad_norm=None)
    before = initialize(np.random.default_rng(3), 2, 2, with_units(3))
    after = updated(config, tiny_samples())
    for old, new in zip(tf.nest.flatten(before), tf.nest.flatten(after), strict=True):
        np.testing.assert_allclose(np.abs(new - old), 0.25, rtol=1e-4)


def test_the_global_norm_of_the_gradient_is_clipped() -> None:
    # with a huge epsilon the first step of Adam is rate / epsilon * gradient
    config = dataclasses.replace(TINY, learning_rate=1e3, adam_epsilon=1e3, max_grad_norm=0.01)
    before = initialize(np.random.default_rng(3), 2, 2, with_units(3))
    steps = tf.nest.map_structure(np.subtract, updated(config, tiny_samples()), before)
    norm = np.sqrt(sum(np.square(step).sum() for step in tf.nest.flatten(steps)))
    assert norm == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("trunk", ["shared", "separate"])
def test_the_update_computes_what_the_policy_does_in_numpy(
    trunk: Literal["shared", "separate"],
) -> None:
    config = dataclasses.replace(TINY, hidden_units=(5, 3), trunk=trunk)
    rng = np.random.default_rng(3)
    drawn = initialize(rng, 2, 2, config)
    weights = tf.nest.map_structure(  # biases too
        lambda array: rng.normal(size=array.shape).astype(np.float32), drawn
    )
    samples = tiny_samples()
    logits, values = weights(samples.observations, np.tanh)
    log_probs = log_softmax(logits)
    taken = log_probs[np.arange(4), samples.actions]
    measured = Learner(config, weights).update(samples._replace(log_probs=taken), 0.0, rng)
    # all ratios are 1
    assert measured.policy_loss == pytest.approx(-samples.advantages.mean(), rel=1e-5)
    assert measured.approx_kl == pytest.approx(0, abs=1e-6)
    assert measured.value_loss == pytest.approx(
        (0.5 * (values - samples.returns) ** 2).mean(), rel=1e-5
    )
    entropy = -(np.exp(log_probs) * log_probs).sum(axis=1).mean()
    assert measured.entropy == pytest.approx(entropy, rel=1e-5)


def test_invalid_samples_have_no_effect_on_the_weights() -> None:
    samples = tiny_samples()
    masked = samples._replace(valid=np.array([1, 1, 1, 0], np.float32))
    garbage = masked._replace(
        observations=np.concatenate([samples.observations[:3], np.full((1, 2), 7, np.float32)]),
        advantages=np.array([1, -1, 2, -50], np.float32),
        returns=np.array([3, 1, -2, 999], np.float32),
    )
    for one, other in zip(
        tf.nest.flatten(updated(TINY, masked)),
        tf.nest.flatten(updated(TINY, garbage)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_every_sample_is_used_once_in_each_pass() -> None:
    # the entropy of one sample: two minibatches of two must average to that of all four
    config = dataclasses.replace(TINY, num_minibatches=2, learning_rate=0.0)
    learner = Learner(config, initialize(np.random.default_rng(3), 2, 2, with_units(3)))
    in_two = learner.update(tiny_samples(), 0.0, np.random.default_rng(0))
    whole = Learner(TINY, initialize(np.random.default_rng(3), 2, 2, with_units(3)))
    at_once = whole.update(tiny_samples(), 0.0, np.random.default_rng(0))
    assert in_two == pytest.approx(at_once, rel=1e-5, abs=1e-7)


def test_the_entropy_bonus_makes_the_policy_more_uniform() -> None:
    # Only the bonus is learned from: no advantages, and a value loss without weight. With a huge
    # epsilon the first step of Adam is rate / epsilon * gradient, here the gradient itself.
    config = dataclasses.replace(
        TINY, learning_rate=1e4, adam_epsilon=1e4, max_grad_norm=None, ent_coef=0.5, vf_coef=0.0
    )
    weights = tf.nest.map_structure(
        np.zeros_like, initialize(np.random.default_rng(3), 2, 2, with_units(3))
    )
    bias = np.log([0.75, 0.25]).astype(np.float32)
    learner = Learner(config, weights._replace(actor=weights.actor._replace(bias=bias)))
    samples = tiny_samples()._replace(advantages=np.zeros(4, np.float32))
    learner.update(samples, config.learning_rate, np.random.default_rng(4))
    # dH / dlogit_i = -p_i * (log p_i + H), which for two actions is +-p_0 * p_1 * log(p_0 / p_1)
    change = 0.5 * 0.75 * 0.25 * np.log(3)
    np.testing.assert_allclose(
        learner.numpy_weights().actor.bias - bias, [-change, change], rtol=1e-3
    )


def test_each_pass_shuffles_anew() -> None:
    config = dataclasses.replace(
        TINY, num_envs=8, num_steps=8, num_epochs=3, num_minibatches=4, hidden_units=(3,)
    )
    learner = Learner(config, initialize(np.random.default_rng(3), 2, 2, with_units(3)))
    passes = learner._minibatches(np.random.default_rng(0)).reshape(3, 64)
    for order in passes:
        assert sorted(order.tolist()) == list(range(64))
    # that two of three orders of 64 samples are equal has a probability of 3 / 64!
    assert len({tuple(order) for order in passes.tolist()}) == 3


def test_the_critic_learns_by_its_share_of_the_loss() -> None:
    # As above, the first step is the gradient: of the mean of (value - return)^2 / 2, by half.
    config = dataclasses.replace(
        TINY, learning_rate=1e4, adam_epsilon=1e4, max_grad_norm=None, ent_coef=0.0, vf_coef=0.5
    )
    weights = tf.nest.map_structure(
        np.zeros_like, initialize(np.random.default_rng(3), 2, 2, with_units(3))
    )
    learner = Learner(config, weights)
    samples = tiny_samples()._replace(advantages=np.zeros(4, np.float32))
    learner.update(samples, config.learning_rate, np.random.default_rng(4))
    bias = learner.numpy_weights().critic.bias
    np.testing.assert_allclose(bias, 0.5 * samples.returns.mean(), rtol=1e-3)


def test_adam_remembers_as_long_as_the_paper_says() -> None:
    # After a gradient g comes one of 0: the moments are 0.9 * 0.1 g and 0.999 * 0.001 g^2, which
    # are divided by 1 - 0.9^2 and 1 - 0.999^2. The first step was the learning rate.
    config = dataclasses.replace(
        TINY, adam_epsilon=1e-12, max_grad_norm=None, ent_coef=0.0, vf_coef=0.0
    )
    learner = Learner(config, initialize(np.random.default_rng(3), 2, 2, with_units(3)))
    samples, rng = tiny_samples(), np.random.default_rng(4)
    biases = [learner.numpy_weights().actor.bias]
    for advantages in (samples.advantages, np.zeros(4, np.float32)):
        learner.update(samples._replace(advantages=advantages), 0.25, rng)
        biases.append(learner.numpy_weights().actor.bias)
    first, second = np.diff(biases, axis=0)
    np.testing.assert_allclose(second / first, 0.9 / 1.9 / np.sqrt(0.999 / 1.999), rtol=5e-4)
