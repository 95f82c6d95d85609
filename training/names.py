"""Names for the numbers of an observation and for the actions, on the policy card."""

from collections.abc import Sequence
from typing import Any

from gymnasium.envs.classic_control import AcrobotEnv, CartPoleEnv

from training.config import ConfigError, Environment
from training.envs import Description, describe

# Gymnasium's spaces carry no names; these follow the tables of its documentation.
_NAMES: dict[type[Any], tuple[list[str], list[str]]] = {
    CartPoleEnv: (
        ["cart_position", "cart_velocity", "pole_angle", "pole_angular_velocity"],
        ["push_left", "push_right"],
    ),
    AcrobotEnv: (
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


def describe_with_names(
    environment: Environment, observation_names: Sequence[str], action_names: Sequence[str]
) -> Description:
    """Describe an environment with the given names or, if they are empty, with known ones.

    Raises:
        ConfigError: there are more or fewer names than numbers or actions.
        UnsupportedEnvironmentError: see `training.envs`.
    """
    described = describe(environment)
    observations, actions = described.observation_names, described.action_names
    if described.made_by in _NAMES and not environment.wrappers:
        observations, actions = _NAMES[described.made_by]
    for what, given, known in [
        ("observation_names", observation_names, observations),
        ("action_names", action_names, actions),
    ]:
        if given and len(given) != len(known):
            raise ConfigError(f"{what} has {len(given)} names, {environment.id} has {len(known)}")
    return described._replace(
        observation_names=list(observation_names or observations),
        action_names=list(action_names or actions),
    )
