"""`POST /act` through real HTTP."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import urllib3

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
    digest = answer["model"].pop("digest")
    assert re.fullmatch("[0-9a-f]{12}", digest)
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
    np.testing.assert_allclose(answer["action_logits"], outputs["action_logits"], rtol=1e-6)
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
