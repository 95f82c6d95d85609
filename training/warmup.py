"""Requests with which TensorFlow Serving warms up a version before serving it.

It reads them from `assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog`. Those
messages come with the package tensorflow-serving-api, which requires the package `tensorflow`,
and that conflicts with `tensorflow-cpu`; so the few fields that are needed are encoded here,
by the numbers they have in TensorFlow Serving's `prediction_log.proto`, `predict.proto` and
`model.proto`.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from training.types import FloatArray

FILE = "tf_serving_warmup_requests"


def write_warmup(path: Path, name: str, observations: FloatArray) -> None:
    """Write requests for both signatures, of one row and of all.

    Args:
        path: of the file.
        name: of the model.
        observations: `[G, O]`.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for rows in (observations[:1], observations):
            batch = len(rows)
            act = {
                "observations": rows,
                "uniforms": np.full(batch, 0.5, np.float32),
                "deterministic": np.zeros(batch, np.bool_),
            }
            writer.write(_prediction_log(name, "serving_default", {"observations": rows}))
            writer.write(_prediction_log(name, "act", act))


def _prediction_log(
    name: str, signature_name: str, inputs: Mapping[str, npt.NDArray[np.generic]]
) -> bytes:
    """A `PredictionLog` (6: predict_log (1: request (1: model_spec, 2: inputs)))."""
    model_spec = _field(1, name.encode()) + _field(3, signature_name.encode())
    request = _field(1, model_spec)
    for key, array in inputs.items():
        tensor = tf.make_tensor_proto(array).SerializeToString()
        request += _field(2, _field(1, key.encode()) + _field(2, tensor))
    return _field(6, _field(1, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message: its key, its length, itself.

    See https://protobuf.dev/programming-guides/encoding/.
    """
    wire_type = 2
    return _varint(number << 3 | wire_type) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Groups of seven bits, the lowest first, each but the last with its high bit set."""
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*groups, number])
