"""Schemas of requests and responses.

They validate requests, decode responses in the client, and generate the OpenAPI description.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

# The largest integer that every JSON client represents exactly (RFC 8259, section 6).
MAX_SEED = 2**53 - 1
Digest = Annotated[
    str,
    Meta(description="The first 12 hex digits of a SHA-256 over all files; empty if not known."),
]
Row = list[float] | dict[str, float]
Seed = Annotated[int, Meta(ge=0, le=MAX_SEED)]
# Ids that clients may give to requests and episodes; they are logged. Python's `$` also matches
# before a final line break, so use `fullmatch` with `PLAIN_WORD`.
PLAIN_WORD = r"[A-Za-z0-9._-]{1,128}"
Name = Annotated[str, Meta(pattern=f"^{PLAIN_WORD}$")]
# JSON has one number type: some languages write 7 as 7.0.
WholeFloat = Annotated[float, Meta(ge=0, le=MAX_SEED, multiple_of=1)]


class ActRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Observations: exactly one of `observations` and `observation`."""

    observations: Annotated[
        list[Row] | UnsetType,
        Meta(description="Each a list of numbers in order, or an object of numbers by name."),
    ] = UNSET
    observation: Annotated[Row | UnsetType, Meta(description="One observation.")] = UNSET
    deterministic: Annotated[
        bool | UnsetType, Meta(description="Take the most probable actions instead of sampling.")
    ] = UNSET
    seed: Annotated[
        Seed | WholeFloat | UnsetType | None,
        Meta(description="Seed of the sampling; the service draws one if it is absent."),
    ] = UNSET
    episode: Annotated[
        Name | UnsetType,
        Meta(description="The episode of the observations, also as the header X-Episode-ID."),
    ] = UNSET
    step: Annotated[
        Seed | WholeFloat | UnsetType,
        Meta(description="The step in the episode of the first observation, from 0."),
    ] = UNSET


class FeedbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The rewards or the return of an episode, or of a request with one observation."""

    episode: Annotated[
        Name | UnsetType, Meta(description="The episode; either this or `request`.")
    ] = UNSET
    request: Annotated[
        Name | UnsetType, Meta(description="The X-Request-ID of the answer with the action.")
    ] = UNSET
    rewards: Annotated[
        list[float] | UnsetType,
        Meta(description="One per step, from `step` on; either these or `return`."),
    ] = UNSET
    return_: Annotated[
        float | UnsetType, Meta(description="The sum of the rewards, without discount.")
    ] = msgspec.field(default=UNSET, name="return")
    step: Annotated[
        Seed | WholeFloat | UnsetType,
        Meta(
            description="The step in the episode of the first reward; by default 0, or for a"
            " request the one that it was asked with."
        ),
    ] = UNSET
    ended: Annotated[
        bool | UnsetType,
        Meta(description="Whether the episode has ended; true by default for feedback by episode."),
    ] = UNSET


class FeedbackResponse(msgspec.Struct, frozen=True):
    """The feedback is recorded."""

    id: Annotated[
        str, Meta(description="The id of this request, which its line in the decision log has too.")
    ]


class ModelVersion(msgspec.Struct, frozen=True):
    """The model and version that answered."""

    name: str
    version: int
    digest: Digest = ""


class ActResponse(msgspec.Struct, frozen=True):
    """Actions and outputs of the policy, one entry per observation."""

    actions: list[int]
    action_logits: list[list[float]]
    action_probabilities: list[list[float]]
    log_probabilities: Annotated[list[float], Meta(description="Log-probabilities of `actions`.")]
    state_values: Annotated[list[float], Meta(description="The critic's estimates of the return.")]
    seed: Annotated[Seed, Meta(description="The seed that the actions were sampled with.")]
    model: ModelVersion
    warnings: Annotated[
        list[str],
        Meta(
            description="Observations outside the ranges seen in training; they are answered too."
        ),
    ]


class Health(msgspec.Struct, frozen=True, omit_defaults=True):
    """Live: the process runs. Ready: a policy is loaded and has passed its checks."""

    status: Literal["live", "ready"]
    model: ModelVersion | UnsetType = UNSET


class VersionReport(msgspec.Struct, frozen=True):
    """One version on disk."""

    version: int
    state: Literal["served", "canary", "shadow", "labelled", "refused", "waiting"]
    reason: Annotated[str, Meta(description="Why it is served, or why not.")]
    digest: Digest = ""
    share: Annotated[float, Meta(description="The part of all episodes that it answers.")] = 0.0


class ModelReport(msgspec.Struct, frozen=True):
    """One model: its versions on disk, newest first, and which one is served."""

    name: str
    default: Annotated[bool, Meta(description="Whether POST /act uses this model.")]
    version: Annotated[int | None, Meta(description="The served version.")]
    versions: list[VersionReport]
    selection: Annotated[
        str,
        Meta(
            description="Digest of which version each episode gets; equal where all get the same."
        ),
    ]


class ObservationComparison(msgspec.Struct, frozen=True):
    """Where two policies differ along one number of the observation, in ten equal bins."""

    name: str
    edges: Annotated[list[float], Meta(description="11 edges of the bins; both ends are open.")]
    decisions: Annotated[list[int], Meta(description="Decisions in each bin.")]
    disagreements: Annotated[
        list[int], Meta(description="Decisions with different most probable actions.")
    ]


class Comparison(msgspec.Struct, frozen=True):
    """The served version and its shadow on the same observations, in all workers."""

    served: ModelVersion
    shadow: ModelVersion
    decisions: Annotated[int, Meta(description="Decisions that were compared.")]
    skipped: Annotated[
        int, Meta(description="Decisions that were not, mostly because the service was busy.")
    ]
    failures: Annotated[int, Meta(description="Calls of the shadow that failed.")]
    agreement: Annotated[
        float | None, Meta(description="Fraction of decisions with the same most probable action.")
    ]
    kl_divergence: Annotated[
        float | None, Meta(description="Mean of KL(served || shadow), in nats.")
    ]
    value_difference: Annotated[
        float | None, Meta(description="Mean of the shadow's state value minus the served one's.")
    ]
    absolute_value_difference: Annotated[
        float | None, Meta(description="Mean of the absolute value of that difference.")
    ]
    observations: list[ObservationComparison]


class ModelsReport(msgspec.Struct, frozen=True):
    """Every model of the service, the default first."""

    models: Annotated[list[ModelReport], Meta(min_length=1)]


class ModelCard(ModelReport, frozen=True):
    """A model and the policy card of its served version."""

    policy: Annotated[
        dict[str, Any] | None, Meta(description="The policy card; null if none is served.")
    ]


class Problem(msgspec.Struct, frozen=True):
    """An error response (RFC 9457)."""

    type: Literal["about:blank"]
    title: Annotated[str, Meta(description="The reason phrase of the status.")]
    status: int
    detail: Annotated[str, Meta(description="What is wrong, where, and what was expected.")]
