"""Which environments are accepted."""

import numpy as np
import pytest

from training import envs


@pytest.mark.parametrize(
    ("env_id", "size", "actions", "threshold"),
    [
        ("CartPole-v1", 4, 2, 475.0),
        ("CartPole-v0", 4, 2, 195.0),
        ("Acrobot-v1", 6, 3, -100.0),
        ("MountainCar-v0", 2, 3, -110.0),
    ],
)
def test_flat_boxes_with_discrete_actions_are_accepted(
    env_id: str, size: int, actions: int, threshold: float
) -> None:
    env = envs.make_vector_env(env_id, 3)
    assert env.num_envs == 3
    assert envs.observation_size(env) == size
    assert envs.num_actions(env) == actions
    assert envs.reward_threshold(env) == threshold
    low, high = envs.observation_bounds(env)
    assert low.shape == high.shape == (size,)
    env.close()


def test_the_time_limit_is_the_registered_one() -> None:
    env = envs.make_vector_env("CartPole-v0", 1)  # 200 steps, where v1 has 500
    env.reset(seed=0)
    # alternating pushes hold the pole for a while, so only ask that v0 is not v1
    assert env.spec is not None
    assert env.spec.max_episode_steps == 200
    env.close()


@pytest.mark.parametrize(
    ("env_id", "reason"),
    [
        ("FrozenLake-v1", "observations are Discrete"),
        ("Blackjack-v1", "observations are Tuple"),
        ("Pendulum-v1", "actions are Box"),
        ("Nope-v0", "doesn't exist"),
        ("CartPole-v9", "doesn't exist"),
        ("not an id!", "Malformed"),
        ("no_such_module:CartPole-v1", "cannot be made"),
        ("LunarLander-v3", "Box2D is not installed"),
    ],
)
def test_others_are_refused_with_the_reason(env_id: str, reason: str) -> None:
    with pytest.raises(envs.UnsupportedEnvironmentError, match=reason) as refusal:
        envs.make_vector_env(env_id, 1)
    assert "\n" not in str(refusal.value)


def test_a_seed_repeats_the_first_observations() -> None:
    def first(seed: int) -> np.ndarray:
        env = envs.make_vector_env("CartPole-v1", 4)
        observations: np.ndarray = env.reset(seed=seed)[0]
        env.close()
        return observations

    np.testing.assert_array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))
