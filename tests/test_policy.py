"""What TensorFlow finds wrong with a version whose files are as its card says."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving.policy.artefact import ArtefactError, read
from serving.policy.outputs import PolicyOutputs
from serving.policy.savedmodel import Policy
from serving.policy.tensorflow_adapter import SavedModel
from tests.artefacts import edit_card, edit_golden, reseal
from tests.conftest import ENVIRONMENT, ROOT, Trained
from tests.graphs import loop, wrap_act


def load(model_dir: Path) -> Policy:
    version = int(model_dir.name)
    return Policy(model_dir, read(model_dir), model_dir.parent.name, version, "0" * 12)


@pytest.fixture
def model_dir(trained: Trained, tmp_path: Path) -> Path:
    return shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "3")


def test_a_version_is_named_by_its_folder(model_dir: Path) -> None:
    identity = {"name": "cartpole", "version": 3, "digest": "0" * 12}
    assert load(model_dir).identity() == identity


def test_the_numbers_of_a_row_do_not_depend_on_the_rows_beside_it(model_dir: Path) -> None:
    policy, count = load(model_dir), 20_011
    rng = np.random.default_rng(0)
    rows = rng.uniform(-0.2, 0.2, (count, 4)).astype(np.float32)
    uniforms, deterministic = rng.random(count, np.float32), rng.random(count) < 0.5
    whole = policy.act(rows, uniforms, deterministic)
    for size in [*range(1, 130), *rng.integers(130, count, 30).tolist()]:
        start = int(rng.integers(count - size))
        some = slice(start, start + size)
        part = policy.act(rows[some], uniforms[some], deterministic[some])
        for name in PolicyOutputs._fields:
            output, wanted = getattr(part, name), getattr(whole, name)[some]
            assert np.array_equal(output, wanted), (name, size, start)


def test_tensorflow_that_was_imported_with_other_kernels_is_refused() -> None:
    program = "import tensorflow; from serving.policy import tensorflow_import as late; "
    finished = subprocess.run(
        [sys.executable, "-c", program + "late.import_tensorflow()"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1
    wanted = "RuntimeError: TensorFlow was imported before TF_ENABLE_ONEDNN_OPTS was set to 1"
    assert finished.stderr.splitlines()[-1] == wanted


def shift_first_value(golden: dict[str, Any]) -> None:
    golden["state_values"][0] += 0.1


def swap_logits(golden: dict[str, Any]) -> None:
    golden["action_logits"] = [row[::-1] for row in golden["action_logits"]]


def shorten_rows(golden: dict[str, Any]) -> None:
    golden["observations"] = [row[:3] for row in golden["observations"]]


def make_ragged(golden: dict[str, Any]) -> None:
    golden["observations"][0] = [0.0]


def lose_values(golden: dict[str, Any]) -> None:
    golden["state_values"] = []


def keep_one_row(golden: dict[str, Any]) -> None:
    """As all observations are the same, each has the logits of the one that is left."""
    golden["observations"] = golden["observations"][:1] * len(golden["observations"])
    golden["state_values"] = golden["state_values"][:1] * len(golden["state_values"])
    golden["action_logits"] = golden["action_logits"][:1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lose_values, "its state_values do not match assets.extra/golden.json"),
        (keep_one_row, "its action_logits do not match assets.extra/golden.json"),
        (shift_first_value, "its state_values do not match assets.extra/golden.json"),
        (swap_logits, "its action_logits do not match assets.extra/golden.json"),
        (shorten_rows, "its golden values cannot be computed"),
        (make_ragged, "its golden values cannot be computed"),
    ],
)
def test_other_golden_values_are_refused(
    model_dir: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    edit_golden(model_dir, change)
    with pytest.raises(ArtefactError, match=reason):
        load(model_dir)


def test_a_graph_that_tensorflow_cannot_read_is_refused_in_one_line(model_dir: Path) -> None:
    (model_dir / "saved_model.pb").write_bytes(b"no graph")
    reseal(model_dir)
    with pytest.raises(ArtefactError, match=r"saved_model\.pb cannot be read: ") as refused:
        load(model_dir)
    assert "\n" not in str(refused.value)


def test_a_card_about_other_observations_is_refused(model_dir: Path) -> None:
    def add_one(card: dict[str, Any]) -> None:
        for name, value in (("names", "another"), ("seen_low", 0.0), ("seen_high", 1.0)):
            card["observations"][name].append(value)
        card["observations"].pop("histograms")

    edit_card(model_dir, add_one)
    with pytest.raises(ArtefactError, match=r"the inputs .*\[None, 4\].*, expected .*\[None, 5\]"):
        load(model_dir)


def test_a_card_about_other_actions_is_refused(model_dir: Path) -> None:
    edit_card(model_dir, lambda card: card["actions"]["names"].append("jump"))
    with pytest.raises(ArtefactError, match="'serving_default' has the outputs"):
        load(model_dir)


def test_a_graph_with_other_outputs_is_refused(model_dir: Path) -> None:
    module = tf.Module()
    signature = tf.function(
        lambda observations: {"actions": tf.argmax(observations, axis=1)},
        input_signature=[tf.TensorSpec([None, 4], tf.float32, "observations")],
    )
    tf.saved_model.save(module, model_dir, signatures={"serving_default": signature})
    reseal(model_dir)
    with pytest.raises(ArtefactError, match="signature 'serving_default' has the outputs"):
        load(model_dir)


def test_a_graph_without_the_replayable_signature_is_refused(model_dir: Path) -> None:
    model = tf.saved_model.load(model_dir)
    tf.saved_model.save(
        model, model_dir, signatures={"serving_default": model.signatures["serving_default"]}
    )
    reseal(model_dir)
    with pytest.raises(ArtefactError, match="it has no signature 'act'"):
        load(model_dir)


def test_a_graph_with_a_loop_decides_as_one_without(model_dir: Path) -> None:
    rows = np.array([[0.01, -0.02, 0.03, 0.04]], np.float32)
    asked = rows, np.array([0.5], np.float32), np.array([False])
    without = load(model_dir).act(*asked)
    wrap_act(model_dir, lambda rows: loop(rows, tf.cast(tf.shape(rows)[0], tf.int64) + 3))
    for one, other in zip(load(model_dir).act(*asked), without, strict=True):
        np.testing.assert_array_equal(one, other)


def edit_graph(model_dir: Path, change: Callable[[Any], object]) -> None:
    """Change the graph of a version, and reseal its card."""
    path = model_dir / "saved_model.pb"
    saved = SavedModel()
    saved.ParseFromString(path.read_bytes())
    change(saved.meta_graphs[0])
    path.write_bytes(saved.SerializeToString())
    reseal(model_dir)


def act_of(meta_graph: Any) -> Any:
    """The function that decides, which the signature `act` calls through another."""
    return next(
        function
        for function in meta_graph.graph_def.library.function
        if re.fullmatch(r"__inference_decide_\d+", function.signature.name)
    )


def test_weights_outside_of_the_version_are_not_read(model_dir: Path, tmp_path: Path) -> None:
    outside = (model_dir / "variables").rename(tmp_path / "outside")
    folder = model_dir / "variables" / "variables"
    folder.mkdir(parents=True)
    (folder / "checkpoint").write_text(f'model_checkpoint_path: "{outside}/variables"\n')
    reseal(model_dir)
    with pytest.raises(ArtefactError, match="TensorFlow cannot load it: "):
        load(model_dir)


def add_file_operation(nodes: Any, operation: str, path: Path) -> str:
    """Add nodes that write "x" into a file; the name of the last."""
    with tf.Graph().as_default() as graph:
        if operation == "WriteFile":
            last = tf.raw_ops.WriteFile(filename=str(path), contents="x", name="evil")
        else:
            last = tf.raw_ops.SaveV2(
                prefix=str(path), tensor_names=["x"], shape_and_slices=[""], tensors=[1.0],
                name="evil",
            )  # fmt: skip
    for node in graph.as_graph_def().node:
        added = nodes.add()
        added.CopyFrom(node)
        added.name = f"evil/{node.name}"
        added.input[:] = [f"evil/{source}" for source in node.input]
    return f"evil/{last.name}"


@pytest.mark.parametrize("operation", ["WriteFile", "SaveV2"])
def test_a_signature_that_has_an_effect_is_refused_by_the_operations_name(
    model_dir: Path, tmp_path: Path, operation: str
) -> None:
    def change(meta_graph: Any) -> None:
        nodes = act_of(meta_graph).node_def
        add_file_operation(nodes, operation, tmp_path / "written")
        for node in nodes:
            if node.name.startswith("evil/"):  # in a function an input names an output
                node.input[:] = [
                    f"{source}:output:0" if source in {one.name for one in nodes} else source
                    for source in node.input
                ]

    edit_graph(model_dir, change)
    with pytest.raises(ArtefactError, match=f"the operation {operation}, which is not allowed"):
        load(model_dir)
    assert not list(tmp_path.glob("written*"))


def test_what_a_file_would_have_run_while_it_is_loaded_is_not_run(
    model_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "written"

    def change(meta_graph: Any) -> None:
        evil = add_file_operation(meta_graph.graph_def.node, "WriteFile", path)
        nodes = {node.name: node for node in meta_graph.graph_def.node}
        for name in ("__saved_model_init_op", "act"):
            for output in meta_graph.signature_def[name].outputs.values():
                if name == "__saved_model_init_op":
                    output.name = evil
        restore = nodes[meta_graph.saver_def.restore_op_name.partition(":")[0]]
        restore.input.append(f"^{evil}")

    edit_graph(model_dir, change)
    load(model_dir)
    assert not path.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda graph: graph.signature_def["act"].outputs["actions"].__setattr__("name", "a:0"),
            "its graph has no node 'a'",
        ),
        (
            lambda graph: graph.graph_def.library.function.remove(act_of(graph)),
            "its graph has no function '__inference_decide_",
        ),
        (lambda graph: graph.meta_info_def.tags.remove("serve"), "has 0 graphs to serve"),
        (lambda graph: graph.saver_def.Clear(), "its weights cannot be found"),
    ],
)
def test_a_graph_with_something_missing_is_refused_with_the_reason(
    model_dir: Path, change: Callable[[Any], object], reason: str
) -> None:
    edit_graph(model_dir, change)
    with pytest.raises(ArtefactError, match=reason):
        load(model_dir)
