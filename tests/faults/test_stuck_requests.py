"""A policy that never answers one request: the others are answered, and its worker replaced."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from serving.client import PolicyClient
from tests.artefacts import publish, reseal
from tests.conftest import Service, Trained, running_service, wait_until
from tests.faults.conftest import Tell
from tests.faults.wire import HEALTH, Wire, children, post

SENTINEL = 12345.0  # no golden row has it
TENSOR = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 0, 0]}
INFER = post(json.dumps({"inputs": [TENSOR]}).encode()).replace(
    b"/act", b"/v2/models/cartpole/infer"
)


def get_stuck_at_sentinel(model_dir: Path) -> None:
    """Have a version's graph multiply large matrices for minutes for one cart position."""
    original = tf.saved_model.load(str(model_dir))

    def work(observations: Any) -> Any:
        size = tf.where(tf.reduce_any(tf.equal(observations[:, 0], SENTINEL)), 5_000, 1)
        matrix = product = tf.fill([size, size], 0.5 / tf.cast(size, tf.float32))
        for _ in range(100):
            product = tf.matmul(product, matrix)
        return observations + tf.cast(product[0, 0] > 1.0, tf.float32)  # which it never is

    def serving_default(observations: Any) -> Any:
        return original.signatures["serving_default"](observations=work(observations))

    def act(observations: Any, uniforms: Any, deterministic: Any) -> Any:
        return original.signatures["act"](
            observations=work(observations), uniforms=uniforms, deterministic=deterministic
        )

    specs = original.signatures["act"].structured_input_signature[1]
    names = ("observations", "uniforms", "deterministic")
    signatures = {
        "serving_default": tf.function(serving_default, [specs["observations"]]),
        "act": tf.function(act, [specs[name] for name in names]),
    }
    module = tf.Module()
    module.original = original
    extra = shutil.copytree(model_dir / "assets.extra", model_dir.parent / ".extra")
    shutil.rmtree(model_dir)
    tf.saved_model.save(module, str(model_dir), signatures=signatures)
    extra.rename(model_dir / "assets.extra")
    reseal(model_dir)


@pytest.fixture(scope="module")
def models(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("stuck")
    (models / "cartpole").mkdir()
    publish(trained.model_dir, models / "cartpole" / "1", get_stuck_at_sentinel)
    return models


@pytest.mark.parametrize(
    ("rows", "pause"),
    [(1, False), (1, True), (10_000, False)],
    ids=["in the loop", "before another comes", "in a thread"],
)
@pytest.mark.long
def test_a_stuck_request_is_told_so_and_its_worker_replaced(
    models: Path, tmp_path: Path, rows: int, pause: bool, tell: Tell
) -> None:
    stuck = post(json.dumps({"observations": [[SENTINEL, 0.0, 0.0, 0.0]] * rows}).encode())
    options = ("--workers", "1", "--request-timeout", "5")
    with running_service(models, tmp_path / "log", *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        (worker,) = children(service.process.pid)
        with Wire(service.url) as first, Wire(service.url) as second:
            for wire in (first, second):
                assert wire.ask(post()).status == 200
            first.send(stuck)
            started = time.monotonic()
            if rows == 1:
                if pause:  # for the worker to be stuck before it comes
                    time.sleep(0.5)
                second.send(INFER)  # waits for the stuck one
            else:
                assert second.ask(HEALTH).status == 200
            answer = first.answer()
            told = time.monotonic() - started
            assert answer.status == 504
            assert answer.fields["content-type"] == "application/problem+json"
            assert answer.json()["detail"] == "the policy took too long"
            assert first.ended()
            if rows == 1:
                waiting = second.answer()
                assert waiting.status in (503, 504)  # 504 if it came with the stuck one
                assert waiting.fields["retry-after"] == "1"
                assert list(waiting.json()) == ["error"]
                assert second.ended()
        wait_until(lambda: children(service.process.pid) not in ([], [worker]))
        wait_until(lambda: is_answered(service))
        seconds = time.monotonic() - started
        tell(f"told 504 after {told:.1f} s, answered by a new worker after {seconds:.1f} s")
        log = (tmp_path / "log").read_text()
        assert "stuck requests answered 504; this worker is replaced" in log


def is_answered(service: Service) -> bool:
    with Wire(service.url) as wire:
        try:
            return wire.ask(post()).status == 200
        except ConnectionError:
            return False
