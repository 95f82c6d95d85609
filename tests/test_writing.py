"""The artefact, read the way that others read it."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import Trained
from tests.runs import with_units
from training import writing
from training.artefact import load
from training.model import Policy, initialize
from training.savedmodel import network_of, save
from training.versions import checksums

POLICY = Policy(initialize(np.random.default_rng(0), 4, 2, with_units(64)), "tanh")
OBSERVATIONS = np.random.default_rng(1).normal(size=(16, 4)).astype(np.float32)
CARD = {"environment": "CartPole-v1", "training": {"config": {"activation": "tanh"}}}


def exported(base: Path, policy: Policy) -> Path:
    golden = writing.golden_values(policy, OBSERVATIONS)
    return writing.write_version(base, network_of(policy), CARD, golden)


@pytest.fixture(scope="module")
def signatures(tmp_path_factory: pytest.TempPathFactory) -> Any:
    base = tmp_path_factory.mktemp("exported") / "cartpole"
    return tf.saved_model.load(exported(base, POLICY))


def act(model: Any, observations: Any, uniforms: Any, deterministic: Any) -> dict[str, Any]:
    outputs = model.signatures["act"](
        observations=tf.constant(observations, tf.float32),
        uniforms=tf.constant(uniforms, tf.float32),
        deterministic=tf.constant(deterministic, tf.bool),
    )
    return {name: output.numpy() for name, output in outputs.items()}


def test_signatures_have_the_names_types_and_shapes_of_the_design(signatures: Any) -> None:
    default, with_randomness = (signatures.signatures[n] for n in ("serving_default", "act"))

    def inputs(signature: Any) -> dict[str, Any]:
        return {
            name: (spec.dtype.name, spec.shape.as_list())
            for name, spec in signature.structured_input_signature[1].items()
        }

    assert inputs(default) == {"observations": ("float32", [None, 4])}
    assert inputs(with_randomness) == {
        "observations": ("float32", [None, 4]),
        "uniforms": ("float32", [None]),
        "deterministic": ("bool", [None]),
    }
    for signature in (default, with_randomness):
        outputs = {
            name: (spec.dtype.name, spec.shape.as_list())
            for name, spec in signature.structured_outputs.items()
        }
        assert outputs == {
            "action_logits": ("float32", [None, 2]),
            "action_probabilities": ("float32", [None, 2]),
            "actions": ("int64", [None]),
            "greedy_actions": ("int64", [None]),
            "log_probabilities": ("float32", [None]),
            "state_values": ("float32", [None]),
        }


def test_outputs_are_those_of_the_policy(signatures: Any) -> None:
    outputs = act(signatures, OBSERVATIONS, np.zeros(16), np.ones(16))
    logits, values = POLICY(OBSERVATIONS)
    odds = np.exp(logits.astype(np.float64))
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(outputs["action_logits"], logits, atol=1e-6)
    np.testing.assert_allclose(outputs["state_values"], values, atol=1e-6)
    np.testing.assert_allclose(outputs["action_probabilities"], probabilities, atol=1e-6)
    np.testing.assert_array_equal(outputs["greedy_actions"], logits.argmax(axis=1))
    np.testing.assert_array_equal(outputs["actions"], logits.argmax(axis=1))
    np.testing.assert_allclose(
        outputs["log_probabilities"], np.log(probabilities.max(axis=1)), atol=1e-6
    )


def test_the_uniform_decides_the_sampled_action(signatures: Any) -> None:
    first = act(signatures, OBSERVATIONS[:1], [0.0], [True])["action_probabilities"][0, 0]
    rows = np.repeat(OBSERVATIONS[:1], 3, axis=0)
    sampled = act(signatures, rows, [0.0, first - 1e-4, first + 1e-4], [False] * 3)
    assert sampled["actions"].tolist() == [0, 0, 1]
    np.testing.assert_allclose(
        sampled["log_probabilities"], np.log([first, first, 1 - first]), atol=1e-5
    )


def test_a_uniform_on_the_border_takes_the_next_action(tmp_path: Path) -> None:
    # logits 0 and 0: [0, 1/2) is the first action, [1/2, 1) the second
    weights = tf.nest.map_structure(np.zeros_like, POLICY.weights)
    version = exported(tmp_path / "even", Policy(weights, "tanh"))
    below = np.nextafter(np.float32(0.5), np.float32(0))
    outputs = act(tf.saved_model.load(version), OBSERVATIONS[:2], [below, 0.5], [False, False])
    assert outputs["actions"].tolist() == [0, 1]


def test_the_default_signature_samples_with_the_probabilities(signatures: Any) -> None:
    rows = np.repeat(OBSERVATIONS[:1], 20_000, axis=0)
    outputs = signatures.signatures["serving_default"](observations=tf.constant(rows))
    expected = outputs["action_probabilities"].numpy()[0, 1]
    frequency = outputs["actions"].numpy().mean()
    assert abs(frequency - expected) < 5 * np.sqrt(0.25 / 20_000)


def test_a_rows_numbers_do_not_depend_on_its_batch_or_place(signatures: Any) -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(4_096, 4)).astype(np.float32)
    uniforms = rng.random(4_096, np.float32)
    whole = act(signatures, rows, uniforms, np.zeros(4_096))
    for start, stop in [(0, 1), (0, 2), (0, 7), (3, 20), (100, 133), (1, 1_000), (5, 4_096)]:
        part = act(signatures, rows[start:stop], uniforms[start:stop], np.zeros(stop - start))
        for name, output in part.items():
            np.testing.assert_array_equal(output, whole[name][start:stop], err_msg=name)


def test_versions_count_up_and_nothing_else_is_left(tmp_path: Path) -> None:
    base = tmp_path / "cartpole"
    (base / "7").mkdir(parents=True)
    assert exported(base, POLICY) == base / "8"
    assert exported(base, POLICY) == base / "9"
    assert sorted(path.name for path in base.iterdir()) == ["7", "8", "9"]


def test_what_killed_programs_left_is_removed_and_not_what_is_being_written(tmp_path: Path) -> None:
    base = tmp_path / "cartpole"
    left, in_use = base / ".writing-left", base / ".writing-in-use"
    for folder in (left, in_use):
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_bytes(b"half")
    with subprocess.Popen(
        ["flock", in_use, "sh", "-c", "echo locked; cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"locked\n"
        exported(base, POLICY)
        writer.communicate()
    assert sorted(path.name for path in base.iterdir()) == [".writing-in-use", "1"]


def test_two_at_once_both_write_a_version(tmp_path: Path) -> None:
    base = tmp_path / "cartpole"
    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(lambda _: exported(base, POLICY).name, range(4)))
    assert sorted(versions) == ["1", "2", "3", "4"]


def test_another_user_can_read_a_version_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        exported(tmp_path / "models" / "cartpole", POLICY)
    finally:
        os.umask(before)
    for path in [tmp_path / "models", *(tmp_path / "models").rglob("*")]:
        readable = 0o055 if path.is_dir() else 0o044
        assert path.stat().st_mode & readable == readable, path


def test_what_is_a_pattern_elsewhere_is_a_name_in_a_path(tmp_path: Path) -> None:
    version = exported(tmp_path / "m[4]" / "q*?", POLICY)
    policy = load(version).policy
    logits, _ = policy(OBSERVATIONS)
    np.testing.assert_allclose(logits, POLICY(OBSERVATIONS)[0], rtol=1e-5, atol=1e-5)


def with_other(part: str) -> Policy:
    """The policy with another actor or critic."""
    other = initialize(np.random.default_rng(9), 4, 2, with_units(64))
    return Policy(POLICY.weights._replace(**{part: getattr(other, part)}), "tanh")


@pytest.mark.parametrize(
    ("part", "output"), [("actor", "action_logits"), ("critic", "state_values")]
)
def test_a_model_that_computes_something_else_is_not_exported(
    part: str, output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        writing, "save", lambda folder, _: save(folder, network_of(with_other(part)))
    )
    with pytest.raises(writing.ExportError, match=f"{output} differ"):
        exported(tmp_path / "cartpole", POLICY)
    assert list((tmp_path / "cartpole").iterdir()) == []


@pytest.mark.parametrize(
    "path", ["assets.extra/golden.json", "variables/variables.index", "saved_model.pb"]
)
def test_a_file_that_differs_from_its_checksum_is_not_exported(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage_after_listing(folder: Path) -> dict[str, str]:
        listed = checksums(folder)
        with (folder / path).open("ab") as file:
            file.write(b" ")
        return listed

    monkeypatch.setattr(writing, "checksums", damage_after_listing)
    with pytest.raises(writing.ExportError, match=f"{path} does not match its checksum"):
        exported(tmp_path / "cartpole", POLICY)
    assert list((tmp_path / "cartpole").iterdir()) == []


def test_a_version_appears_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "cartpole"
    seen_before_rename: list[list[str]] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen_before_rename.append([p.name for p in base.iterdir() if p.name.isdecimal()])
        assert (self / "saved_model.pb").stat().st_size > 0
        card = json.loads((self / "assets.extra" / "policy.json").read_text())
        assert card == CARD | {"checksums": card["checksums"]}
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    exported(base, POLICY)
    assert seen_before_rename == [[]]


def test_everything_is_synced_before_the_rename_and_the_rename_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A crash of the machine could else leave a version with empty files.
    base = tmp_path / "cartpole"
    synced: set[int] = set()
    missing_before_rename: list[Path] = []
    fsync, rename = os.fsync, Path.rename

    def noted(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watched(self: Path, target: Path) -> Path:
        tree = [self, *self.rglob("*")]
        missing_before_rename.extend(path for path in tree if path.stat().st_ino not in synced)
        assert len(tree) > 8
        synced.clear()
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "rename", watched)
    exported(base, POLICY)
    assert missing_before_rename == []
    assert synced == {base.stat().st_ino}


def test_golden_values_are_the_policys(trained: Trained) -> None:
    golden = json.loads((trained.model_dir / "assets.extra" / "golden.json").read_text())
    model = tf.saved_model.load(trained.model_dir)
    rows = len(golden["observations"])
    outputs = act(model, golden["observations"], np.zeros(rows), np.ones(rows))
    np.testing.assert_allclose(outputs["action_logits"], golden["action_logits"], atol=1e-4)
    np.testing.assert_allclose(outputs["state_values"], golden["state_values"], rtol=1e-5)
    assert np.ptp(np.array(golden["action_logits"])) > 0.1  # they tell policies apart


def test_the_card_says_what_was_trained_and_how_good_it_is(trained: Trained) -> None:
    card = json.loads((trained.model_dir / "assets.extra" / "policy.json").read_text())
    assert card["environment"] == "CartPole-v1"
    assert card["solved"] is True
    assert card["reward_threshold"] == 475.0
    assert card["observations"]["names"][2] == "pole_angle"
    assert card["observations"]["shape"] == [4]
    assert card["observations"]["high"][1] is None  # velocities are unbounded
    assert card["actions"]["names"] == ["push_left", "push_right"]
    assert card["training"]["preset"] == "ppo"
    assert card["training"]["config"]["clip_coef"] == 0.2
    assert card["training"]["env_steps"] == trained.summary["env_steps"]
    for kind in ("greedy", "sampled"):
        evaluation = card["evaluation"][kind]
        assert evaluation == trained.summary[kind]
        assert evaluation["episodes"] == 100
        low, high = evaluation["confidence_interval"]
        assert low <= evaluation["mean"] <= high <= 500.0
    assert card["versions"]["tensorflow"] == tf.__version__


@pytest.mark.long
def test_saved_model_cli_shows_both_signatures(trained: Trained) -> None:
    tool = Path(sys.executable).parent / "saved_model_cli"
    shown = subprocess.run(
        [tool, "show", "--dir", trained.model_dir, "--all"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"},
    ).stdout
    assert "signature_def['serving_default']" in shown
    assert "signature_def['act']" in shown
