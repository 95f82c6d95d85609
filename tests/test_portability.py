"""The artefact runs in other programs as it is: TensorFlow's own, TensorFlow Serving, LiteRT."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tests.conftest import ENVIRONMENT, Trained

OBSERVATIONS = np.random.default_rng(0).uniform(-0.2, 0.2, (5, 4)).astype(np.float32)
ACT = {
    "observations": OBSERVATIONS,
    "uniforms": np.linspace(0, 0.99, 5, dtype=np.float32),
    "deterministic": np.array([False, False, True, False, True]),
}
INPUTS = {"serving_default": {"observations": OBSERVATIONS}, "act": ACT}
# All but the actions that `serving_default` samples, and their probabilities.
REPEATABLE = ["action_logits", "action_probabilities", "greedy_actions", "state_values"]


@pytest.fixture(scope="module")
def expected(trained: Trained) -> dict[str, Any]:
    signature = tf.saved_model.load(trained.model_dir).signatures["act"]
    outputs = signature(**{name: tf.constant(array) for name, array in ACT.items()})
    return {name: output.numpy() for name, output in outputs.items()}


def check(outputs: dict[str, Any], expected: dict[str, Any], signature: str) -> None:
    assert outputs.keys() == expected.keys()
    for name in expected if signature == "act" else REPEATABLE:
        assert outputs[name].dtype == expected[name].dtype
        # Kernels of another library round otherwise.
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("signature", INPUTS)
def test_saved_model_cli_runs_both_signatures(
    trained: Trained, tmp_path: Path, expected: dict[str, Any], signature: str
) -> None:
    np.savez(tmp_path / "inputs.npz", **INPUTS[signature])  # type: ignore[arg-type] # any arrays
    inputs = ";".join(f"{name}={tmp_path / 'inputs.npz'}[{name}]" for name in INPUTS[signature])
    finished = subprocess.run(
        [
            *(str(Path(sys.executable).parent / "saved_model_cli"), "run"),
            *("--dir", str(trained.model_dir), "--tag_set", "serve"),
            *("--signature_def", signature, "--inputs", inputs, "--outdir", str(tmp_path / "out")),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    outputs = {path.stem: np.load(path) for path in (tmp_path / "out").iterdir()}
    check(outputs, expected, signature)


def test_the_warm_up_requests_are_those_of_tensorflow_serving_and_are_answered(
    trained: Trained,
) -> None:
    messages = importlib.import_module("tensorflow_serving.apis.prediction_log_pb2")
    model = tf.saved_model.load(trained.model_dir)
    path = trained.model_dir / "assets.extra" / "tf_serving_warmup_requests"
    asked = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        log = messages.PredictionLog.FromString(record)
        # What it does not know, or what was encoded otherwise, would not come out the same.
        assert log.SerializeToString(deterministic=True) == canonical(messages, record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == "cartpole"
        signature = model.signatures[request.model_spec.signature_name]
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        wanted = signature.structured_input_signature[1]
        assert {name: array.dtype.name for name, array in inputs.items()} == {
            name: spec.dtype.name for name, spec in wanted.items()
        }
        outputs = signature(**{name: tf.constant(array) for name, array in inputs.items()})
        rows = len(inputs["observations"])
        assert {len(output) for output in outputs.values()} == {rows}
        asked.append((request.model_spec.signature_name, rows))
    golden = json.loads((trained.model_dir / "assets.extra" / "golden.json").read_text())
    every = len(golden["observations"])
    assert asked == [("serving_default", 1), ("act", 1), ("serving_default", every), ("act", every)]


def canonical(messages: Any, record: bytes) -> bytes:
    """The record without anything that its message does not know."""
    log = messages.PredictionLog.FromString(record)
    log.DiscardUnknownFields()
    content: bytes = log.SerializeToString(deterministic=True)
    return content


def test_the_graph_has_only_operations_of_tensorflow_itself_and_no_python(
    trained: Trained,
) -> None:
    content = (trained.model_dir / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    functions = graph.graph_def.library.function
    operations = {node.op for node in graph.graph_def.node}
    operations |= {node.op for function in functions for node in function.node_def}
    assert {"MatMul", "Tanh", "RandomUniform"} <= operations
    known = {operation for operation in operations if hasattr(tf.raw_ops, operation)}
    assert operations - known == set()
    assert [operation for operation in operations if "Py" in operation] == []


# LiteRT in a process of its own: it warns and prints a lot.
CONVERT = """
import sys
import numpy as np
import tensorflow as tf

folder, signature, inputs, converted = sys.argv[1:]
# Only its builtin operations are allowed, unless told otherwise.
model = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[signature]).convert()
runner = tf.lite.Interpreter(model_content=model).get_signature_runner(signature)
np.savez(converted, **runner(**np.load(inputs)))
"""


@pytest.mark.parametrize("signature", INPUTS)
def test_litert_computes_the_same(
    trained: Trained, tmp_path: Path, expected: dict[str, Any], signature: str
) -> None:
    inputs, outputs = tmp_path / "inputs.npz", tmp_path / "outputs.npz"
    np.savez(inputs, **INPUTS[signature])  # type: ignore[arg-type] # any arrays
    finished = subprocess.run(
        [*(sys.executable, "-c", CONVERT), str(trained.model_dir), signature, inputs, outputs],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    check(dict(np.load(outputs)), expected, signature)
