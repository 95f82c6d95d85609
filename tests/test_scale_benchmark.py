"""The model of a rollout on a cluster, with numbers worked out by hand."""

import pytest

from benchmarks.scale_training import Model, fit

MODEL = Model(step=0.005, call=0.002, actor=0.001, learn=0.016, row=1e-6)


def test_parts_of_a_rollout() -> None:
    parts = MODEL.parts(num_envs=20, workers=8)  # three environments in most of the workers
    assert parts["stepping"] == pytest.approx(32 * 3 * 0.005)
    assert parts["acting"] == pytest.approx(32 * 20 * 1e-6)
    assert parts["Ray"] == pytest.approx(0.002 + 8 * 0.001)
    assert parts["learning"] == pytest.approx(0.020)
    assert MODEL.rollout(20, 8) == pytest.approx(0.48 + 0.00064 + 0.010 + 0.020)


def test_without_workers_one_process_steps_all_environments() -> None:
    assert MODEL.parts(16, 0)["Ray"] == 0
    assert MODEL.parts(16, 0)["stepping"] == pytest.approx(32 * 16 * 0.005)


def test_the_model_is_found_in_measurements_that_it_explains() -> None:
    instant = MODEL._replace(step=20e-6)
    measured = {workers: instant.rollout(16, workers) for workers in (0, 1, 2, 4)}
    assert fit(measured, 0.005, 20e-6, 1e-6) == pytest.approx(MODEL)
