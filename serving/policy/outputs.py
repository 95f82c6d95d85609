"""What a policy computes for a batch."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serving.policy.observations import FloatArray


class PolicyOutputs(NamedTuple):
    """The outputs of the signature `act` for `B` observations, by their names there."""

    action_logits: FloatArray  # [B, A]
    action_probabilities: FloatArray  # [B, A]
    actions: npt.NDArray[np.int64]  # [B], the most probable if deterministic, else sampled
    greedy_actions: npt.NDArray[np.int64]  # [B], the most probable
    log_probabilities: FloatArray  # [B], of `actions`
    state_values: FloatArray  # [B]
