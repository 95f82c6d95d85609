"""The files of a version, read and checked without TensorFlow."""

import hashlib
import math
import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import msgspec
import numpy as np

from serving.schemas import MAX_SEED

CARD = "assets.extra/policy.json"
GOLDEN = "assets.extra/golden.json"
SIGNATURE = "model.sig"  # the one file that the card does not list: it covers the card
PICTURES = {name: f"assets.extra/{name}" for name in ("learning_curve.png", "episode.gif")}
# Limit for a file that is kept in memory: decoding JSON can take 25 times its size.
MAX_KEPT_BYTES = 16 * 1024 * 1024
# Limits for files that are read whole; the signature has some 300 bytes per file of a version.
MAX_FILE_BYTES = {SIGNATURE: 1024 * 1024, CARD: MAX_KEPT_BYTES, GOLDEN: MAX_KEPT_BYTES}
MAX_REASON = 500  # characters
MAX_VERSION = 2**63 - 1  # the limit of TensorFlow Serving, and of JSON integers in many languages
# The card's checksum of itself is computed with this in place of the checksum.
NO_CHECKSUM = b"0" * 64

T = TypeVar("T")


class ArtefactError(Exception):
    """A version cannot be served; the message says why, in one line."""

    def __init__(self, reason: str) -> None:
        # It may quote names from the version, which must not forge log lines or control terminals.
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in reason[:MAX_REASON])
        super().__init__(shown[:MAX_REASON])


class Histograms(msgspec.Struct):
    """A histogram of each feature of the observations, from the sampled evaluation.

    A value belongs to the bin right after the largest edge that does not exceed it.
    """

    rows: Annotated[int, msgspec.Meta(ge=1, le=2**53)]  # of the evaluation
    edges: list[list[float]]  # per feature: the boundaries between bins, increasing
    shares: list[list[float]]  # per feature: the share of rows in each bin; one more than edges


class Observations(msgspec.Struct):
    """The card's section on observations; every list has one entry per feature."""

    names: list[str]
    seen_low: list[float]
    seen_high: list[float]
    histograms: Histograms | None = None  # a card may have none


class Actions(msgspec.Struct):
    """The card's section on actions."""

    names: list[str]
    # The environment's number for action 0, which clients add; JavaScript represents it exactly.
    start: Annotated[int, msgspec.Meta(ge=-MAX_SEED, le=MAX_SEED)] = 0


class Evaluation(msgspec.Struct):
    """The returns of the evaluation episodes."""

    mean: float


class Evaluations(msgspec.Struct):
    """The evaluations made after training, with greedy and with sampled actions."""

    greedy: Evaluation
    sampled: Evaluation


class Card(msgspec.Struct):
    """The fields of the policy card that serving needs."""

    environment: str
    observations: Observations
    actions: Actions
    solved: bool
    evaluation: Evaluations
    # SHA-256 of every file, by path
    checksums: dict[str, Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]]
    # The lowest and the highest possible return of an episode, if known.
    return_bounds: tuple[float, float] | None = None


class Golden(msgspec.Struct):
    """Golden values: what the policy computed after training for `G` observations."""

    observations: Annotated[list[list[float]], msgspec.Meta(min_length=1)]  # [G, O]
    action_logits: list[list[float]]  # [G, A]
    state_values: list[float]  # [G]
    # Relative and absolute; with a large one, the comparison would prove nothing.
    tolerance: Annotated[float, msgspec.Meta(ge=0, le=1e-3)]


class Artefact(NamedTuple):
    """The files beside the SavedModel."""

    card: Card
    card_json: bytes  # the whole card
    golden: Golden
    pictures: dict[str, bytes]  # of the training run, by name; only those small enough to keep


def version_number(name: str) -> int | None:
    """Parse a folder's name as a version: ASCII digits, up to `MAX_VERSION`; otherwise None.

    Leading zeros are not accepted: two folders could then have the same number.
    """
    if not (name.isascii() and name.isdecimal() and len(name) < 20):
        return None
    number = int(name)
    return number if str(number) == name and number <= MAX_VERSION else None


def version_numbers(folder: Path) -> list[int]:
    """List the versions in a model's folder, newest first; empty if only that folder is missing.

    Raises:
        OSError: the folder cannot be read, or its parent is missing.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        os.stat(folder.parent)
        return []
    numbers = [number for name in names if (number := version_number(name)) is not None]
    return sorted(numbers, reverse=True)


def read(model_dir: Path) -> Artefact:
    """Read the card and golden values of a version's copy, and check every file by its checksum.

    Checksums detect damage, not tampering: whoever can write the folder can change them too. The
    signature is not checked here.

    Raises:
        ArtefactError: a file is missing, changed, unknown, invalid or too large.
    """
    found = (path for path in model_dir.rglob("*") if path.is_file())
    files = {path.relative_to(model_dir).as_posix(): path for path in found}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    for name, most in MAX_FILE_BYTES.items():
        if sizes.get(name, 0) > most:
            raise ArtefactError(f"{name} has more than {most} bytes")
    files.pop(SIGNATURE, None)
    card_json, card = _decode(files, CARD, Card)
    _check_checksums(files, card_json, card.checksums)
    _, golden = _decode(files, GOLDEN, Golden)
    known = card.observations
    if not len(known.names) == len(known.seen_low) == len(known.seen_high):
        raise ArtefactError(f"{CARD}: its observations have ranges and names of different lengths")
    if len(set(known.names)) < len(known.names):
        raise ArtefactError(f"{CARD}: two of its observations have the same name")
    if known.histograms is not None:
        _check_histograms(known.histograms, known.names)
    pictures = {
        name: files[path].read_bytes()
        for name, path in PICTURES.items()
        if path in files and sizes[path] <= MAX_KEPT_BYTES
    }
    return Artefact(card, card_json, golden, pictures)


def require_return(card: Card, min_return: float | None) -> None:
    """Raise `ArtefactError` if a policy is not solved or has a mean return below `min_return`."""
    if not card.solved:
        raise ArtefactError("its card says that it is not solved")
    for kind in ("greedy", "sampled"):
        mean = getattr(card.evaluation, kind).mean
        if min_return is not None and mean < min_return:
            raise ArtefactError(f"its {kind} mean return {mean:g} is below {min_return:g}")


def _check_checksums(files: dict[str, Path], card_json: bytes, checksums: dict[str, str]) -> None:
    for path in sorted(files.keys() | checksums.keys()):
        if path not in files:
            raise ArtefactError(f"{path} is missing")
        if path not in checksums:
            raise ArtefactError(f"{path} is not on the card")
        if path == CARD:
            content = card_json.replace(checksums[path].encode(), NO_CHECKSUM)
            digest = hashlib.sha256(content)
        else:
            with files[path].open("rb") as file:  # may have any size: it is read in pieces
                digest = hashlib.file_digest(file, "sha256")
        if digest.hexdigest() != checksums[path]:
            raise ArtefactError(f"{path} does not match its checksum on the card")


def _check_histograms(histograms: Histograms, names: list[str]) -> None:
    if not len(names) == len(histograms.edges) == len(histograms.shares):
        raise ArtefactError(f"{CARD}: its histograms and names have different lengths")
    for name, edges, shares in zip(names, histograms.edges, histograms.shares, strict=True):
        what = f"{CARD}: the histogram of {name!r}"
        if len(shares) != len(edges) + 1:
            raise ArtefactError(f"{what} has {len(edges)} edges and {len(shares)} shares")
        with np.errstate(over="ignore"):  # in float32, as observations are
            in_order = [-math.inf, *np.array(edges, np.float32).tolist(), math.inf]
        if not all(one < other for one, other in pairwise(in_order)):
            raise ArtefactError(f"{what} has edges that are not finite and increasing")
        if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ArtefactError(f"{what} has shares that do not add up to 1")


def _decode(files: dict[str, Path], path: str, kind: type[T]) -> tuple[bytes, T]:
    """A JSON file's bytes, and the decoded value."""
    if path not in files:
        raise ArtefactError(f"{path} is missing")
    content = files[path].read_bytes()
    try:
        content.decode()  # answers include all of it, so all must be UTF-8
        return content, msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtefactError(f"{path}: {error}") from error
