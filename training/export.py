"""The artefact: a SavedModel with its policy card and golden values.

A version is written to a hidden folder, loaded back, checked, and only then renamed to its
number, so that a program that watches the folder never sees an incomplete one.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import tensorflow as tf

from training.artefact import GOLDEN
from training.files import CARD, make_readable, plain_path, sync, sync_tree
from training.model import Policy, activation_function
from training.types import FloatArray
from training.versions import NO_CHECKSUM, checksums
from training.warmup import FILE as WARMUP
from training.warmup import write_warmup

# Matrix kernels choose their code path by the number of rows, and vectorised functions treat
# the remainder differently. Padded to whole blocks, every row takes the same path, so that its
# outputs do not depend on the rest of the batch. Measured with oneDNN on.
ROW_BLOCK = 16

GOLDEN_TOLERANCE = 1e-5


class ExportError(Exception):
    """The written version differs from its checksums or from the trained policy."""


def export(
    base: Path,
    policy: Policy,
    card: dict[str, Any],
    golden_observations: FloatArray,
    extra_files: Mapping[str, Path] = MappingProxyType({}),
) -> Path:
    """Write the next version of a policy.

    Args:
        base: folder of the versions, made if missing.
        policy: what to export.
        card: the policy card; JSON values. `checksums` is added: the SHA-256 of every file,
            its own with `NO_CHECKSUM` in the place of that checksum.
        golden_observations: `[G, O]`; their outputs are stored, so that others can verify theirs.
        extra_files: name to path of further files to copy to `assets.extra`.

    Returns:
        The version's folder, `base/<number>`.

    Raises:
        ExportError: what was written differs from its checksums, or computes other values
            than `policy` on the golden observations.
        OSError: `base` cannot be written.
    """
    base.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".writing-", dir=base))
    try:
        _save(staging, policy)
        logits, values = policy(golden_observations)
        extra = staging / "assets.extra"
        extra.mkdir()
        for name, path in extra_files.items():
            shutil.copyfile(path, extra / name)
        golden = {
            "observations": golden_observations.tolist(),
            "action_logits": logits.tolist(),
            "state_values": values.tolist(),
            "tolerance": GOLDEN_TOLERANCE,
        }
        (staging / GOLDEN).write_text(_to_json(golden))
        write_warmup(extra / WARMUP, base.name, golden_observations)
        listed = {**checksums(staging), CARD: NO_CHECKSUM}
        unsigned = _to_json({**card, "checksums": listed})
        own_checksum = hashlib.sha256(unsigned.encode()).hexdigest()
        (staging / CARD).write_text(unsigned.replace(NO_CHECKSUM, own_checksum))
        _verify(staging, golden_observations, logits, values)
        make_readable(staging)
        return _rename_to_next_version(staging, base)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _save(folder: Path, policy: Policy) -> None:
    weights = tf.nest.map_structure(tf.Variable, policy.weights)
    activation = activation_function(policy.activation, tf)

    def decide(observations: Any, uniforms: Any, deterministic: Any) -> dict[str, Any]:
        """All outputs from one forward pass; uniforms are in [0, 1)."""
        batch = tf.shape(observations)[0]
        padded = tf.pad(observations, [[0, -batch % ROW_BLOCK], [0, 0]])
        logits, values = weights(padded, activation)
        # Written out: with oneDNN the softmax operation takes 50 us, as long as all the rest.
        shifted = logits - tf.reduce_max(logits, axis=1, keepdims=True)
        exponentials = tf.exp(shifted)
        total = tf.reduce_sum(exponentials, axis=1, keepdims=True)
        log_probabilities = (shifted - tf.math.log(total))[:batch]
        probabilities = exponentials / total
        cumulative = tf.cumsum(probabilities, axis=1)[:batch, :-1]
        logits, values, probabilities = logits[:batch], values[:batch], probabilities[:batch]
        greedy = tf.argmax(logits, axis=1)
        exceeded = tf.cast(cumulative <= uniforms[:, tf.newaxis], tf.int64)
        actions = tf.where(deterministic, greedy, tf.reduce_sum(exceeded, axis=1))
        return {
            "action_logits": logits,
            "action_probabilities": probabilities,
            "actions": actions,
            "greedy_actions": greedy,
            "log_probabilities": tf.gather(log_probabilities, actions, batch_dims=1),
            "state_values": values,
        }

    def decide_at_random(observations: Any) -> dict[str, Any]:
        batch = tf.shape(observations)[:1]
        return decide(observations, tf.random.uniform(batch), tf.zeros(batch, tf.bool))

    rows = tf.TensorSpec([None, policy.observation_size], tf.float32, name="observations")
    uniforms = tf.TensorSpec([None], tf.float32, name="uniforms")
    deterministic = tf.TensorSpec([None], tf.bool, name="deterministic")
    module = tf.Module()
    module.weights = weights
    signatures = {
        "serving_default": tf.function(decide_at_random, input_signature=[rows], autograph=False),
        "act": tf.function(
            decide, input_signature=[rows, uniforms, deterministic], autograph=False
        ),
    }
    with plain_path(folder) as path:
        tf.saved_model.save(module, path, signatures=signatures)


def _verify(folder: Path, observations: FloatArray, logits: FloatArray, values: FloatArray) -> None:
    outputs = _run(folder, observations)
    written = checksums(folder)
    for path, checksum in json.loads((folder / CARD).read_text())["checksums"].items():
        if path != CARD and written[path] != checksum:
            raise ExportError(f"{path} does not match its checksum")
    for name, trained in [("action_logits", logits), ("state_values", values)]:
        saved = outputs[name].numpy()
        if not np.allclose(saved, trained, rtol=GOLDEN_TOLERANCE, atol=GOLDEN_TOLERANCE):
            difference = np.abs(saved - trained).max()
            raise ExportError(f"the SavedModel's {name} differ from the policy's by {difference}")


def _run(folder: Path, observations: FloatArray) -> dict[str, Any]:
    """What the SavedModel that was just written computes, as others will load it."""
    with plain_path(folder) as path:
        signature = tf.saved_model.load(path).signatures["serving_default"]
    outputs: dict[str, Any] = signature(observations=tf.constant(observations, tf.float32))
    return outputs


def _to_json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"


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
