"""Writing the artefact: a SavedModel with its policy card and golden values.

A version is written to a hidden folder, loaded back, checked, and only then renamed to its
number, so that a program that watches the folder never sees an incomplete one.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from training.artefact import GOLDEN
from training.errors import TrainingError
from training.files import CARD, make_readable, plain_path, sync, sync_tree
from training.savedmodel import Network, save
from training.types import FloatArray, PolicyFunction
from training.versions import NO_CHECKSUM, checksums, staging_folder
from training.warmup import FILE as WARMUP
from training.warmup import write_warmup

GOLDEN_TOLERANCE = 1e-5


class ExportError(TrainingError):
    """A version differs from its checksums or from the policy, or must not be exported."""


class Golden(NamedTuple):
    """What a policy computes for some observations, by the names in `golden.json`."""

    observations: FloatArray  # [G, O]
    action_logits: FloatArray  # [G, A]
    state_values: FloatArray  # [G]


def golden_values(policy: PolicyFunction, observations: FloatArray) -> Golden:
    """Compute the golden values of observations `[G, O]`."""
    return Golden(observations, *policy(observations))


def write_version(
    base: Path,
    network: Network,
    card: dict[str, Any],
    golden: Golden,
    extra_files: Callable[[], Mapping[str, Path]] = dict,
) -> Path:
    """Write the next version of a policy.

    Args:
        base: folder of the versions, made if missing.
        network: of the policy.
        card: the policy card; JSON values. `checksums` is added: the SHA-256 of every file,
            the card's own computed with `NO_CHECKSUM` in its place.
        golden: what the policy computes, stored so that others can verify their results.
        extra_files: returns the names and paths of further files to copy to `assets.extra`; it
            may wait for them, as it is called after the SavedModel is written and verified.

    Returns:
        The version's folder, `base/<number>`.

    Raises:
        ExportError: what was written differs from its checksums, or from the golden values.
        OSError: `base` cannot be written.
    """
    _make(base)
    with staging_folder(base) as staging:
        save(staging, network)
        _verify_outputs(staging, golden)
        extra = staging / "assets.extra"
        extra.mkdir()
        for name, path in extra_files().items():
            shutil.copyfile(path, extra / name)
        values = {name: array.tolist() for name, array in golden._asdict().items()}
        (staging / GOLDEN).write_text(_to_json({**values, "tolerance": GOLDEN_TOLERANCE}))
        write_warmup(extra / WARMUP, base.name, golden.observations)
        listed = {**checksums(staging), CARD: NO_CHECKSUM}
        unsigned = _to_json({**card, "checksums": listed})
        own_checksum = hashlib.sha256(unsigned.encode()).hexdigest()
        (staging / CARD).write_text(unsigned.replace(NO_CHECKSUM, own_checksum))
        _verify_checksums(staging)
        make_readable(staging)
        return _rename_to_next_version(staging, base)


def _make(base: Path) -> None:
    """Make a folder and those above it that are missing, readable for every user."""
    missing = [folder for folder in (base, *base.parents) if not folder.exists()]
    base.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.chmod(folder.stat().st_mode | 0o555)


def _verify_checksums(folder: Path) -> None:
    written = checksums(folder)
    for path, checksum in json.loads((folder / CARD).read_text())["checksums"].items():
        if path != CARD and written[path] != checksum:
            raise ExportError(f"{path} does not match its checksum")


def _verify_outputs(folder: Path, golden: Golden) -> None:
    """Load the written SavedModel, as others will, and check what it computes."""
    with plain_path(folder) as path:
        signature = tf.saved_model.load(path).signatures["serving_default"]
    outputs = signature(observations=tf.constant(golden.observations, tf.float32))
    for name in ("action_logits", "state_values"):
        saved, expected = outputs[name].numpy(), getattr(golden, name)
        if not np.allclose(saved, expected, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE):
            difference = np.abs(saved - expected).max()
            raise ExportError(f"the SavedModel's {name} differ from the policy's by {difference}")


def _to_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _rename_to_next_version(staging: Path, base: Path) -> Path:
    # Before the rename: a crash must not leave a version with empty files.
    sync_tree(staging)
    while True:
        taken = [int(path.name) for path in base.iterdir() if path.name.isdecimal()]
        target = base / str(max(taken, default=0) + 1)
        try:
            # Fails if another run has taken the number: a version's folder is never empty.
            staging.rename(target)
        except OSError:
            if not target.exists():
                raise
        else:
            sync(base)
            return target
