"""Gymnasium spaces: which ones a policy can be learned for, and what their numbers are called.

A policy takes the flat vector that `gymnasium.spaces.flatten` makes of an observation.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from gymnasium import Space
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple, flatdim


def reason_against(observations: Space[Any], actions: Space[Any]) -> str | None:
    """Why no policy can be learned for these spaces, or None if one can."""
    for space in _parts(observations):
        if not isinstance(space, Box | Discrete | MultiDiscrete | MultiBinary):
            return f"observations are {_short(space)}, whose size is not fixed"
        if isinstance(space, Box) and space.dtype == np.uint8 and len(space.shape) > 1:
            return f"observations are images of shape {space.shape}, which this network cannot read"
    if not isinstance(actions, Discrete):
        return f"actions are {_short(actions)}, Discrete actions are needed"
    if flatdim(observations) == 0:
        return "observations are empty"
    return None


def is_flat(observations: Space[Any]) -> bool:
    """Whether observations are vectors as they are."""
    return isinstance(observations, Box) and len(observations.shape) == 1


def observation_names(space: Space[Any]) -> list[str]:
    """Names of the numbers of a flat observation `[O]`, made of the space's keys.

    A Discrete space has a number for each of its values (one-hot).
    """
    names = list(_names(space, ""))
    if len(set(names)) < len(names):  # keys such as "a" and "a_0" can collide
        return [f"observation_{i}" for i in range(len(names))]
    return names


def _names(space: Space[Any], prefix: str) -> Iterator[str]:
    if isinstance(space, Dict | Tuple):
        if isinstance(space, Tuple):
            prefix = prefix or "observation"
        for key, child in space.items() if isinstance(space, Dict) else enumerate(space):
            yield from _names(child, f"{prefix}_{key}" if prefix else str(key))
        return
    prefix = prefix or "observation"
    if isinstance(space, Discrete):
        yield from (f"{prefix}_{space.start + i}" for i in range(space.n))
    elif isinstance(space, MultiDiscrete):
        starts, sizes = np.ravel(space.start), np.ravel(space.nvec)
        for index, (start, size) in enumerate(zip(starts, sizes, strict=True)):
            yield from (f"{prefix}_{index}_{start + i}" for i in range(size))
    elif space.shape == (1,) and prefix != "observation":
        yield prefix
    else:
        assert space.shape is not None
        for indices in product(*map(range, space.shape)):
            yield "_".join([prefix, *map(str, indices)])


def _parts(space: Space[Any]) -> Iterator[Space[Any]]:
    """The elementary spaces that a space consists of."""
    if isinstance(space, Dict | Tuple):
        for child in space.values() if isinstance(space, Dict) else space:
            yield from _parts(child)
    else:
        yield space


def _short(space: Space[Any]) -> str:
    text = " ".join(str(space).split())
    return text if len(text) <= 60 else f"{text[:60]}..."
