"""`POST /act` through real HTTP."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Service, Trained

NAMES = ["cart_position", "cart_velocity", "pole_angle", "pole_angular_velocity"]
ROW = [0.01, -0.02, 0.03, 0.04]


def post(
    service: Service, body: Any, content_type: str | None = "application/json"
) -> urllib3.BaseHTTPResponse:
    """Send a body: bytes as they are, anything else as JSON."""
    return urllib3.request(
        "POST",
        f"{service.url}/act",
        body=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={} if content_type is None else {"Content-Type": content_type},
        retries=False,
    )


def act(service: Service, **body: Any) -> dict[str, Any]:
    response = post(service, body)
    assert response.status == 200, response.data
    assert response.headers["Content-Type"] == "application/json"
    answer: dict[str, Any] = response.json()
    return answer


def test_answers_as_designed(service: Service) -> None:
    answer = act(service, observations=[ROW, ROW], deterministic=False, seed=7)
    assert list(answer) == [
        "actions",
        "action_logits",
        "action_probabilities",
        "log_probabilities",
        "state_values",
        "seed",
        "model",
        "warnings",
    ]
    assert answer["seed"] == 7
    assert answer["model"] == {"name": "cartpole", "version": 1}
    assert answer["warnings"] == []
    for row in range(2):
        left, right = answer["action_logits"][row]
        probability = 1 / (1 + math.exp(left - right))
        assert answer["action_probabilities"][row] == pytest.approx(
            [1 - probability, probability], abs=1e-6
        )
        chosen = answer["action_probabilities"][row][answer["actions"][row]]
        assert answer["log_probabilities"][row] == pytest.approx(math.log(chosen), abs=1e-6)
    assert len(answer["state_values"]) == 2


def test_numbers_are_those_of_the_saved_model(service: Service, trained: Trained) -> None:
    answer = act(service, observations=[ROW], deterministic=True)
    model = tf.saved_model.load(trained.model_dir)
    outputs = model.signatures["serving_default"](observations=tf.constant([ROW]))
    assert answer["action_logits"] == outputs["action_logits"].numpy().tolist() or np.allclose(
        answer["action_logits"], outputs["action_logits"], rtol=1e-6
    )
    assert answer["state_values"] == pytest.approx(outputs["state_values"].numpy().tolist())
    assert answer["actions"] == outputs["greedy_actions"].numpy().tolist()


def test_rows_may_be_named_in_any_order(service: Service) -> None:
    named = dict(reversed(list(zip(NAMES, ROW, strict=True))))
    answer = act(service, observations=[named, ROW], seed=1)
    assert answer["action_logits"][0] == answer["action_logits"][1]


def test_one_observation_may_stand_alone(service: Service) -> None:
    alone = act(service, observation=ROW, seed=3)
    assert alone == act(service, observations=[ROW], seed=3)
    named = dict(zip(NAMES, ROW, strict=True))
    assert alone == act(service, observation=named, seed=3)


def test_deterministic_takes_the_most_probable_action(service: Service) -> None:
    rng = np.random.default_rng(0)
    rows = rng.uniform(-0.2, 0.2, (50, 4)).tolist()
    answer = act(service, observations=rows, deterministic=True)
    expected = np.argmax(answer["action_probabilities"], axis=1)
    assert answer["actions"] == expected.tolist()
    assert set(answer["actions"]) == {0, 1}


def test_an_answer_is_replayed_by_the_seed_that_it_returns(service: Service) -> None:
    rows = [ROW] * 64
    first = act(service, observations=rows)
    assert act(service, observations=rows, seed=first["seed"]) == first
    assert act(service, observations=rows)["seed"] != first["seed"]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**53 - 1), rows=st.integers(1, 100), more=st.integers(1, 100))
def test_a_rows_answer_does_not_depend_on_the_rows_after_it(
    service: Service, seed: int, rows: int, more: int
) -> None:
    observations = np.random.default_rng(seed).normal(size=(rows + more, 4)).tolist()
    whole = act(service, observations=observations, seed=seed)
    part = act(service, observations=observations[:rows], seed=seed)
    for name in ("actions", "action_logits", "log_probabilities", "state_values"):
        assert part[name] == whole[name][:rows]


def test_sampled_frequencies_are_the_probabilities(service: Service) -> None:
    rows = 20_000
    answer = act(service, observations=[ROW] * rows, seed=5)
    probability = answer["action_probabilities"][0][1]
    deviation = math.sqrt(probability * (1 - probability) / rows)
    assert abs(np.mean(answer["actions"]) - probability) < 4 * deviation


def test_rows_outside_what_training_saw_are_answered_with_a_warning(service: Service) -> None:
    answer = act(service, observations=[ROW, [3.0, 0.0, 0.0, 0.0]])
    assert len(answer["actions"]) == 2
    (warning,) = answer["warnings"]
    expected = r"observations\[1\]: cart_position 3 is outside -2\.\d+ to 2\.\d+, .*"
    assert re.fullmatch(expected, warning)


def test_many_warnings_are_cut_short(service: Service) -> None:
    warnings = act(service, observations=[[9.0, 0.0, 0.0, 0.0]] * 30)["warnings"]
    assert len(warnings) == 11
    assert warnings[-1] == "and 20 more rows"


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "not JSON"),
        (b"[", 400, "not JSON"),
        (b'{"observations": [[1,2,3,NaN]]}', 400, "not JSON"),
        (b'{"observations": [[1,2,3,4]]} trailing', 400, "not JSON"),
        (b'{"observations": [["', 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (3, 422, "xpected `object`, got `int`"),
        ({}, 422, "'observations' is missing"),
        ({"observations": None}, 422, "observations: expected `array`, got `null`"),
        ({"observations": []}, 422, "0 rows, expected 1 to 65536"),
        ({"observations": [[]]}, 422, "observations[0]: 0 numbers, expected 4"),
        ({"observations": [ROW, ROW[:3]]}, 422, "observations[1]: 3 numbers, expected 4"),
        ({"observations": [[*ROW, 1.0]]}, 422, "observations[0]: 5 numbers, expected 4"),
        ({"observations": [ROW, "x"]}, 422, "observations[1]: expected `object | array`"),
        ({"observations": [[1, 2, 3, "4"]]}, 422, "observations[0][3]: expected `float`"),
        ({"observations": [[1, 2, 3, None]]}, 422, "observations[0][3]: expected `float`"),
        ({"observations": [[1, 2, 3, True]]}, 422, "observations[0][3]: expected `float`"),
        ({"observations": [[1, 2, 3, [4]]]}, 422, "observations[0][3]: expected `float`"),
        ({"observations": [[1, 2, 3, 1e39]]}, 422, "pole_angular_velocity: 1e+39 is beyond"),
        (b'{"observations": [[1, 2, 3, 1e999]]}', 422, "observations[0][3]: number out of range"),
        ({"observations": [ROW], "observation": ROW}, 422, "exclude each other"),
        ({"observation": [ROW]}, 422, "observation[0]: expected `float`, got `array`"),
        ({"observation": {"cart_position": 1}}, 422, "'cart_velocity' is missing"),
        ({"observation": dict.fromkeys([*NAMES, "speed"], 0)}, 422, "'speed' is unknown"),
        ({"observation": dict.fromkeys(NAMES, "x")}, 422, "expected `float`, got `str`"),
        ({"observations": [ROW], "seed": -1}, 422, "seed: expected `int` >= 0"),
        ({"observations": [ROW], "seed": 2**53}, 422, "seed: expected `int` <= 9007199254740991"),
        ({"observations": [ROW], "seed": 1.5}, 422, "seed: expected `int | null`"),
        ({"observations": [ROW], "seed": "7"}, 422, "seed: expected `int | null`"),
        ({"observations": [ROW], "deterministic": 1}, 422, "deterministic: expected `bool`"),
        ({"observations": [ROW], "sed": 7}, 422, "unknown field `sed`"),
        ({"observations": [ROW] * 65_537}, 422, "65537 rows, expected 1 to 65536"),
    ],
)
def test_a_wrong_body_is_told_what_is_wrong_with_it(
    service: Service, body: Any, status: int, detail: str
) -> None:
    problem = expect_problem(post(service, body), status)
    assert detail in problem["detail"]


def expect_problem(response: urllib3.BaseHTTPResponse, status: int) -> dict[str, Any]:
    assert response.status == status, response.data
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert set(problem) == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    return problem


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_another_content_type_is_refused(service: Service, content_type: str | None) -> None:
    problem = expect_problem(post(service, {"observations": [ROW]}, content_type), 415)
    assert "application/json" in problem["detail"]


def test_a_charset_beside_the_content_type_is_allowed(service: Service) -> None:
    response = post(service, {"observations": [ROW]}, "application/json; charset=utf-8")
    assert response.status == 200


def test_too_large_a_body_is_refused(service: Service) -> None:
    expect_problem(post(service, b" " * (16 * 1024 * 1024 + 1)), 413)


def test_other_routes_and_methods_answer_in_the_same_shape(service: Service) -> None:
    missing = urllib3.request("GET", f"{service.url}/no/such/route", retries=False)
    expect_problem(missing, 404)
    wrong_method = urllib3.request("GET", f"{service.url}/act", retries=False)
    expect_problem(wrong_method, 405)
    assert "POST" in wrong_method.headers["Allow"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(
            st.sampled_from([*NAMES, "x"]) | st.text(max_size=3), children, max_size=5
        )
    ),
    max_leaves=20,
)
bodies = st.one_of(
    st.binary(max_size=200),
    json_values,
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("observations", "observation", "deterministic", "seed"), json_values
        ),
    ),
    st.builds(
        lambda rows: {"observations": rows},
        st.lists(st.lists(st.floats(allow_nan=False, width=32), min_size=3, max_size=5)),
    ),
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies)
def test_no_body_makes_the_service_fail(service: Service, body: Any) -> None:
    response = post(service, body)
    if response.status == 200:
        answer = response.json()
        assert np.isfinite(answer["action_logits"]).all()
    else:
        assert response.status in (400, 422)
        expect_problem(response, response.status)
