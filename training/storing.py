"""Whether environments can be stored in a checkpoint, found out without TensorFlow."""

import contextlib

import cloudpickle
import numpy as np
import numpy.typing as npt

from training.config import Environment
from training.envs import make_vector_env
from training.errors import first_line
from training.shares import not_exiting

COMPARED_STEPS = 8


@not_exiting()
def reason_against_storing(environment: Environment) -> str | None:
    """Why environments cannot continue exactly from a checkpoint, or None if they can.

    Some hold locks or sockets; others pickle how they were made, not their current state. So two
    are stored and restored, and the steps that follow are compared with the originals'.

    Raises:
        UnsupportedEnvironmentError: see `training.envs`.
        WorkerError: the environment has ended the program.
    """
    with contextlib.closing(make_vector_env(environment, 2)) as env:
        try:
            env.action_space.seed(0)
            env.reset(seed=0)
            env.step(env.action_space.sample())
            with contextlib.closing(cloudpickle.loads(cloudpickle.dumps(env))) as restored:
                for step in range(COMPARED_STEPS):
                    actions = env.action_space.sample()
                    one, other = (each.step(actions)[:4] for each in (env, restored))
                    if not all(map(_are_equal, one, other)):
                        return f"step {step + 1} after restoring it differs"
                if not _are_equal(env.reset()[0], restored.reset()[0]):
                    return "its next episode differs"
        # It is third-party code, which can raise anything.
        except Exception as error:
            return first_line(error)
    return None


def _are_equal(one: npt.ArrayLike, other: npt.ArrayLike) -> bool:
    """Whether two arrays are equal; NaN equals NaN here, since training reports NaN itself."""
    return np.array_equal(one, other, equal_nan=True)
