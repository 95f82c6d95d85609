"""What is said over HTTP.

These types validate the requests, decode the answers in the client, and make the OpenAPI
description.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from serving.policy.sampling import MAX_SEED

Row = list[float] | dict[str, float]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]
# JSON does not tell 7.0 from 7, and some languages write the one for the other.
WholeFloat = Annotated[float, Meta(ge=0, le=MAX_SEED, multiple_of=1)]


class ActRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Observations to decide about: exactly one of `observations` and `observation`."""

    observations: Annotated[
        list[Row] | UnsetType,
        Meta(description="Rows: each the numbers in order, or an object with their names."),
    ] = UNSET
    observation: Annotated[Row | UnsetType, Meta(description="One row.")] = UNSET
    deterministic: Annotated[
        bool | UnsetType, Meta(description="Take the most probable actions. Else they are sampled.")
    ] = UNSET
    seed: Annotated[
        Seed | WholeFloat | UnsetType | None,
        Meta(description="Replays the sampled actions. Without one the service draws it."),
    ] = UNSET


class ModelVersion(msgspec.Struct, frozen=True):
    """Who decided."""

    name: str
    version: int


class ActResponse(msgspec.Struct, frozen=True):
    """Decisions, one entry a row of observations."""

    actions: list[int]
    action_logits: list[list[float]]
    action_probabilities: list[list[float]]
    log_probabilities: Annotated[list[float], Meta(description="Of `actions`.")]
    state_values: Annotated[list[float], Meta(description="Estimated return from here on.")]
    seed: Annotated[Seed, Meta(description="Replays these actions.")]
    model: ModelVersion
    warnings: Annotated[
        list[str], Meta(description="Rows outside what training saw; they are answered.")
    ]


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """The process is alive, or a policy is loaded and has answered."""

    status: Literal["live", "ready"]
    model: ModelVersion | UnsetType = UNSET


class VersionReport(msgspec.Struct, frozen=True):
    """One version on the disk."""

    version: int
    state: Literal["served", "labelled", "refused", "waiting"]
    reason: Annotated[str, Meta(description="Why it is served, or why not.")]


class ModelReport(msgspec.Struct, frozen=True):
    """One model: its versions on the disk, the newest first, and which of them is served."""

    name: str
    default: Annotated[bool, Meta(description="Whether POST /act asks this one.")]
    version: Annotated[int | None, Meta(description="The version that is served.")]
    versions: list[VersionReport]


class ModelsReport(msgspec.Struct, frozen=True):
    """Every model of the service, the default one first."""

    models: list[ModelReport]


class ModelCard(ModelReport, frozen=True):
    """A model and the policy card of its served version."""

    policy: Annotated[
        dict[str, Any] | None, Meta(description="The policy card; null if none is served.")
    ]


class Problem(msgspec.Struct, frozen=True):
    """Any answer that is not the one asked for (RFC 9457)."""

    type: Literal["about:blank"]
    title: Annotated[str, Meta(description="The status in words.")]
    status: int
    detail: Annotated[str, Meta(description="What is wrong, where, and what was expected.")]
