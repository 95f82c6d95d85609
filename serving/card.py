"""The files beside a SavedModel that serving depends on."""

import msgspec


class Observations(msgspec.Struct):
    """The card's part about observations; all lists have one entry a number."""

    names: list[str]
    seen_low: list[float]
    seen_high: list[float]


class Card(msgspec.Struct):
    """The part of `assets.extra/policy.json` that serving depends on."""

    environment: str
    observations: Observations


class Golden(msgspec.Struct):
    """`assets.extra/golden.json`: what the policy computed where it was trained."""

    observations: list[list[float]]
    action_logits: list[list[float]]
    state_values: list[float]
    tolerance: float
