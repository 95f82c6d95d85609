"""Versions whose graphs do something else before they decide."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from tests.artefacts import reseal


def wrap_act(model_dir: Path, before: Callable[[Any], Any]) -> None:
    """Have the signature `act` take `before(observations)` for its observations."""
    original = tf.saved_model.load(model_dir)

    def act(observations: Any, uniforms: Any, deterministic: Any) -> Any:
        return original.signatures["act"](
            observations=before(observations), uniforms=uniforms, deterministic=deterministic
        )

    specs = original.signatures["act"].structured_input_signature[1]
    names = ("observations", "uniforms", "deterministic")
    module = tf.Module()
    module.original = original
    signatures = {
        "serving_default": original.signatures["serving_default"],
        "act": tf.function(act, [specs[name] for name in names]),
    }
    tf.saved_model.save(module, model_dir, signatures=signatures)
    reseal(model_dir)


def loop(observations: Any, turns: Any) -> Any:
    """The observations, after a loop whose length is only known when it runs."""
    _, same = tf.while_loop(
        lambda turn, _: turn < turns,
        lambda turn, looped: (turn + 1, looped * 1.0),
        [tf.constant(0, tf.int64), observations],
    )
    return same


def endless(observations: Any) -> Any:
    """Loop for 2^62 turns."""
    return loop(observations, tf.cast(tf.shape(observations)[0], tf.int64) + 2**62)


def fill(count: int) -> Callable[[Any], Any]:
    """Make that many numbers of four bytes, whatever the observations are."""

    def before(observations: Any) -> Any:
        rows = tf.cast(tf.shape(observations)[0], tf.int64)
        return observations + 0.0 * tf.fill([count + rows], observations[0, 0])[rows]

    return before
