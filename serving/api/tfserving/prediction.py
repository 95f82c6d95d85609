"""TensorFlow Serving's predictions, over any transport. No HTTP."""

import numpy as np

from serving.api.tensors import Array
from serving.errors import InvalidRequestError, NotFoundError, NotReadyError
from serving.policy.decide import DecisionRequest, SamplingSpec
from serving.policy.observations import require_shape
from serving.registry.assignment import Choice
from serving.registry.repository import Repository


def decision(
    choice: Choice, inputs: dict[str, Array], episode: str | None, max_rows: int
) -> DecisionRequest:
    """What to decide, given the inputs of a signature by name.

    Raises:
        InvalidRequestError: an input has a wrong shape, or a uniform is not finite.
    """
    policy, selection = choice
    observations = inputs["observations"]
    require_shape(observations.shape, policy.card.observations.names, max_rows)
    sampling = _sampling(inputs) if "uniforms" in inputs else SamplingSpec()
    return DecisionRequest(policy, observations, sampling, episode, selection=selection)


def find(
    repository: Repository,
    name: str,
    version: int | None,
    label: str | None,
    episode: str | None = None,
) -> Choice:
    """The version that a request names; otherwise the version for its episode.

    Raises:
        InvalidRequestError: no version has that label.
        NotFoundError: there is no such model or version, or it is not served.
    """
    try:
        return repository.choose(name, version=version, label=label, episode=episode)
    except (NotFoundError, NotReadyError) as error:
        if label is not None:
            reason = f"Unrecognized servable version label: {label} ({error.detail})"
            raise InvalidRequestError(reason) from error
        which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
        reason = f"Servable not found for request: {which} ({error.detail})"
        raise NotFoundError(reason) from error


def _sampling(inputs: dict[str, Array]) -> SamplingSpec:
    rows = len(inputs["observations"])
    for name in ("uniforms", "deterministic"):
        if inputs[name].shape != (rows,):
            raise InvalidRequestError(
                f"{name}: the shape is {list(inputs[name].shape)}, "
                f"expected [{rows}] for as many observations"
            )
    with np.errstate(over="ignore"):
        uniforms = inputs["uniforms"].astype(np.float32)
    if not np.isfinite(uniforms).all():
        raise InvalidRequestError("uniforms: one is not finite")
    return SamplingSpec(uniforms=uniforms, deterministic=inputs["deterministic"])
