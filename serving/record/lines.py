"""The lines of a decision log: one JSON object each, in separate files for each worker.

`id`, `time` and `type` are those of CloudEvents 1.0. A file begins with a `Head` and ends with a
`Block` that says why it ends; every block chains the lines before it to all earlier ones.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from serving.schemas import ModelVersion, Seed

# Suffixes of a file that its worker is still writing, and of one that is complete.
OPEN, COMPLETE = ".jsonl.open", ".jsonl"
FILE_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-(?P<stream>[0-9a-f]+)-(?P<part>[0-9]+)\.jsonl(\.open)?")


def completed(path: Path) -> Path:
    """What a file is called once it is complete."""
    return path.with_suffix("") if path.name.endswith(OPEN) else path


_Action = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Head(msgspec.Struct, tag="head", kw_only=True, frozen=True):
    """The first line of a file: what the file is a part of, and what is left out of it."""

    # With a key, format 1 has a signature of the last block's hash only, 2 of each block's line.
    format: Literal[1, 2] = 1
    stream: str  # of one worker process, from its start to its end
    part: int  # of the stream, from 1
    number: int  # of the next numbered line
    previous: str  # hash of the last block of the part before, "" in the first one
    time: str  # RFC 3339, UTC
    sample: float  # share of the requests that are recorded, in (0, 1]
    rows: bool  # whether observations are recorded; without them, nothing can be replayed


class Decision(msgspec.Struct, tag="decision", kw_only=True, frozen=True):
    """One answered request of `B` rows and `A` actions, with float32 in its shortest form."""

    number: int  # of the line, counted in its stream from 1
    id: str  # of the request
    time: str  # at which it was decided, RFC 3339, UTC
    model: ModelVersion
    selection: str  # digest of the version selection that chose the version
    episode: str | None = None
    step: int | None = None  # of the first row in its episode
    observations: list[list[float]] | None = None  # [B, O], as the policy saw them
    deterministic: bool | list[bool] = False  # for all rows, or [B]
    seed: Seed | None = None  # of the uniforms; None if the client gave these
    uniforms: list[float] | None = None  # [B]
    actions: list[_Action]  # [B]
    log_probabilities: list[float]  # [B], of `actions`
    state_values: list[float]  # [B]
    warnings: list[str] = []
    milliseconds: float  # from decoding to the encoded answer, for all decided together


class Feedback(msgspec.Struct, tag="feedback", kw_only=True, frozen=True, omit_defaults=True):
    """The outcome of an episode or a request: rewards by step, or a return."""

    number: int
    id: str  # of the request that brought the feedback
    time: str
    episode: str | None = None  # either this or `request`
    request: str | None = None  # id of a request whose one row the feedback is about
    step: int | None = None  # of the first reward in its episode
    rewards: list[float] | None = None  # either these or `return`
    return_: float | None = msgspec.field(default=None, name="return")
    ended: bool  # whether the episode ended with this


class Lost(msgspec.Struct, tag="lost", kw_only=True, frozen=True):
    """Numbered lines that could not be written; this line itself has no number."""

    first: int
    lines: int
    reason: str


class Block(msgspec.Struct, tag="block", kw_only=True, frozen=True, omit_defaults=True):
    """Ends a block of lines: SHA-256 of the previous hash (64 hex digits) and of their bytes.

    The hash before the first block of a file is `Head.previous`; the head is among its lines.
    """

    sha256: str
    # In a file's last line, why it ends: the next part follows, its worker stopped, or its worker
    # was killed and another one has completed the file.
    end: Literal["rotated", "stopped", "recovered"] | None = None
    signature: str | None = None  # in base64, where there is a key


Line = Head | Decision | Feedback | Lost | Block


def encode_line(line: Line) -> bytes:
    """A line as it stands in a file."""
    return msgspec.json.encode(line) + b"\n"
