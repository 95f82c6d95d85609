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
# What a client may call a request or an episode, which is logged. Python's `$` also matches before
# a final line break, so `PLAIN_WORD` has to match the whole.
PLAIN_WORD = r"[A-Za-z0-9._-]{1,128}"
Name = Annotated[str, Meta(pattern=f"^{PLAIN_WORD}$")]
# JSON has one number type: some languages write 7 as 7.0.
WholeFloat = Annotated[float, Meta(ge=0, le=MAX_SEED, multiple_of=1)]


class ActRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Observations to act on: exactly one of `observations` and `observation`."""

    observations: Annotated[
        list[Row] | UnsetType,
        Meta(description="Rows: each a list of numbers in order, or an object of named numbers."),
    ] = UNSET
    observation: Annotated[Row | UnsetType, Meta(description="One row.")] = UNSET
    deterministic: Annotated[
        bool | UnsetType, Meta(description="Take the most probable actions instead of sampling.")
    ] = UNSET
    seed: Annotated[
        Seed | WholeFloat | UnsetType | None,
        Meta(description="Replays the sampled actions. Without a seed the service draws one."),
    ] = UNSET
    episode: Annotated[
        Name | UnsetType,
        Meta(description="The episode that the rows are of; the header X-Episode-ID says it too."),
    ] = UNSET
    step: Annotated[
        Seed | WholeFloat | UnsetType,
        Meta(description="Steps of the episode before the first row."),
    ] = UNSET


class FeedbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """What came of an episode, or of the one row of a request: its rewards, or its return."""

    episode: Annotated[
        Name | UnsetType, Meta(description="The episode; either this or `request`.")
    ] = UNSET
    request: Annotated[
        Name | UnsetType, Meta(description="The X-Request-ID of a decision's answer.")
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
        Meta(description="Of the first reward in its episode; 0 by default."),
    ] = UNSET
    ended: Annotated[
        bool | UnsetType,
        Meta(description="Whether the episode has ended; by default after feedback about it."),
    ] = UNSET


class FeedbackResponse(msgspec.Struct, frozen=True):
    """The feedback is taken."""

    id: Annotated[str, Meta(description="Of the request, as its line in the decision log has it.")]


class ModelVersion(msgspec.Struct, frozen=True):
    """The model and version that answered."""

    name: str
    version: int
    digest: Digest = ""


class ActResponse(msgspec.Struct, frozen=True):
    """Actions and policy outputs, one entry per row of observations."""

    actions: list[int]
    action_logits: list[list[float]]
    action_probabilities: list[list[float]]
    log_probabilities: Annotated[list[float], Meta(description="Log-probabilities of `actions`.")]
    state_values: Annotated[list[float], Meta(description="The critic's estimates of the return.")]
    seed: Annotated[Seed, Meta(description="Replays these actions.")]
    model: ModelVersion
    warnings: Annotated[
        list[str],
        Meta(description="Rows outside the ranges that training saw; they are answered too."),
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
    """Where two policies differ along one number of the observations, in ten equal bins."""

    name: str
    edges: Annotated[list[float], Meta(description="11 edges of the bins; both ends are open.")]
    decisions: Annotated[list[int], Meta(description="Decisions in each bin.")]
    disagreements: Annotated[
        list[int], Meta(description="Those with another most probable action.")
    ]


class Comparison(msgspec.Struct, frozen=True):
    """The served version and its shadow, on what both decided about, in all workers."""

    served: ModelVersion
    shadow: ModelVersion
    decisions: Annotated[int, Meta(description="Decisions that were compared.")]
    skipped: Annotated[int, Meta(description="Decisions that were not, mostly while busy.")]
    failures: Annotated[int, Meta(description="Calls of the shadow that failed.")]
    agreement: Annotated[
        float | None, Meta(description="Fraction with the same most probable action.")
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

    models: list[ModelReport]


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
