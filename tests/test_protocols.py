"""All protocols give the same numbers and the same actions, and decode in one way."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import urllib3
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.policy.sampling import uniforms_of
from tests.conftest import ROOT, Service
from tests.test_act import ROW

HEADER = "Inference-Header-Content-Length"
JSON = {"Content-Type": "application/json"}
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "INT64": np.dtype("<i8")}
INFER = "/v2/models/cartpole/infer"
PREDICT = "/v1/models/cartpole:predict"

Array = npt.NDArray[Any]
Outputs = dict[str, Array]


@pytest.fixture(scope="module")
def pool(service: Service) -> Iterator[urllib3.HTTPConnectionPool]:
    with urllib3.connection_from_url(service.url) as connections:
        yield connections


def post(
    pool: urllib3.HTTPConnectionPool, path: str, body: Any, headers: dict[str, str] = JSON
) -> urllib3.BaseHTTPResponse:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return pool.urlopen("POST", path, body=content, headers=headers, retries=False)


def answer(pool: urllib3.HTTPConnectionPool, path: str, body: Any) -> Any:
    response = post(pool, path, body)
    assert response.status == 200, response.data
    return response.json()


def arrays(outputs: dict[str, Any]) -> Outputs:
    dtypes = {"actions": np.int64, "greedy_actions": np.int64}
    # Float32 in its shortest form is the same number again.
    return {name: np.array(v, dtypes.get(name, np.float32)) for name, v in outputs.items()}


def by_act(pool: Any, rows: Array, seed: int, deterministic: bool) -> Outputs:
    body = {"observations": rows.tolist(), "seed": seed, "deterministic": deterministic}
    answered = answer(pool, "/act", body)
    return arrays({name: answered[name] for name in list(answered)[:5]})


def act_inputs(rows: Array, seed: int, deterministic: bool) -> dict[str, Any]:
    return {
        "observations": rows.tolist(),
        "uniforms": uniforms_of([seed], [len(rows)]).tolist(),
        "deterministic": [deterministic] * len(rows),
    }


def by_columns(pool: Any, rows: Array, seed: int, deterministic: bool) -> Outputs:
    body = {"signature_name": "act", "inputs": act_inputs(rows, seed, deterministic)}
    return arrays(answer(pool, PREDICT, body)["outputs"])


def by_rows(pool: Any, rows: Array, seed: int, deterministic: bool) -> Outputs:
    inputs = act_inputs(rows, seed, deterministic)
    instances = [dict(zip(inputs, row, strict=True)) for row in zip(*inputs.values(), strict=True)]
    answered = answer(pool, PREDICT, {"signature_name": "act", "instances": instances})
    (names,) = {tuple(row) for row in answered["predictions"]}
    return arrays({name: [row[name] for row in answered["predictions"]] for name in names})


def infer_request(rows: Array, seed: int, deterministic: bool, **data: Any) -> dict[str, Any]:
    tensor = {"name": "observations", "shape": list(rows.shape), "datatype": "FP32", **data}
    return {"inputs": [tensor], "parameters": {"seed": seed, "deterministic": deterministic}}


def by_infer(pool: Any, rows: Array, seed: int, deterministic: bool) -> Outputs:
    body = infer_request(rows, seed, deterministic, data=rows.ravel().tolist())
    answered = answer(pool, INFER, body)
    assert answered["parameters"]["seed"] == seed
    return {
        tensor["name"]: np.array(tensor["data"], DTYPES[tensor["datatype"]]).reshape(
            tensor["shape"]
        )
        for tensor in answered["outputs"]
    }


def by_bytes(pool: Any, rows: Array, seed: int, deterministic: bool) -> Outputs:
    parameters = {"binary_data_size": rows.nbytes}
    body = infer_request(rows, seed, deterministic, parameters=parameters)
    body["parameters"]["binary_data_output"] = True
    head = json.dumps(body).encode()
    response = post(pool, INFER, head + rows.tobytes(), {HEADER: str(len(head))})
    assert response.status == 200, response.data
    start = int(response.headers[HEADER])
    outputs = {}
    for tensor in json.loads(response.data[:start])["outputs"]:
        stop = start + tensor["parameters"]["binary_data_size"]
        flat: Array = np.frombuffer(response.data[start:stop], DTYPES[tensor["datatype"]])
        outputs[tensor["name"]] = flat.reshape(tensor["shape"])
        start = stop
    return outputs


numbers = st.floats(-5, 5, width=32) | st.floats(-(2.0**50), 2.0**50, width=32)
observations = st.integers(1, 40).flatmap(
    lambda rows: st.lists(st.lists(numbers, min_size=4, max_size=4), min_size=rows, max_size=rows)
)


@settings(max_examples=150, deadline=None)
@given(observations, st.integers(0, 2**53 - 1), st.booleans())
def test_every_protocol_gives_the_same_numbers_and_actions(
    pool: urllib3.HTTPConnectionPool, rows: list[list[float]], seed: int, deterministic: bool
) -> None:
    array = np.array(rows, np.float32)
    expected = by_act(pool, array, seed, deterministic)
    for ask in (by_columns, by_rows, by_infer, by_bytes):
        outputs = ask(pool, array, seed, deterministic)
        assert outputs.keys() == expected.keys() | {"greedy_actions"}
        for name, want in expected.items():
            np.testing.assert_array_equal(outputs[name], want, strict=True, err_msg=name)


def test_a_large_batch_is_the_same_in_every_protocol(pool: urllib3.HTTPConnectionPool) -> None:
    array = np.random.default_rng(0).normal(size=(20_000, 4)).astype(np.float32)
    expected = by_act(pool, array, 3, deterministic=False)
    assert set(expected["actions"].tolist()) == {0, 1}
    for ask in (by_columns, by_rows, by_infer, by_bytes):
        outputs = ask(pool, array, 3, deterministic=False)
        assert all(np.array_equal(outputs[name], want) for name, want in expected.items())


def test_the_default_signature_samples_with_the_probabilities(
    pool: urllib3.HTTPConnectionPool,
) -> None:
    outputs = arrays(answer(pool, PREDICT, {"inputs": [ROW] * 10_000})["outputs"])
    probability = float(outputs["action_probabilities"][0, 1])
    deviation = (probability * (1 - probability) / 10_000) ** 0.5
    assert abs(outputs["actions"].mean() - probability) < 6 * deviation
    again = arrays(answer(pool, PREDICT, {"inputs": [ROW] * 10_000})["outputs"])
    assert (again["actions"] != outputs["actions"]).any()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_in_every_protocol(
    pool: urllib3.HTTPConnectionPool, number: float
) -> None:
    row = np.array([[0, 0, number, 0]], "<f4")
    body = infer_request(row, 0, False, parameters={"binary_data_size": 16})
    head = json.dumps(body).encode()
    responses = [
        post(pool, INFER, head + row.tobytes(), {HEADER: str(len(head))}),
        post(pool, PREDICT, {"instances": row.tolist()}),
        post(pool, PREDICT, {"inputs": row.tolist()}),
    ]
    for response in responses:
        assert response.status == 400
        assert "observations[0].pole_angle: " in response.json()["error"]
        assert "is not finite" in response.json()["error"]
    one = {"observations": [ROW], "uniforms": [number], "deterministic": [False]}
    response = post(pool, PREDICT, {"signature_name": "act", "inputs": one})
    assert (response.status, response.json()) == (400, {"error": "uniforms: one is not finite"})


@pytest.mark.parametrize(
    "changed", [{"uniforms": [0.5] * 3}, {"deterministic": [True]}, {"uniforms": [[0.5]] * 2}]
)
def test_inputs_of_different_batches_are_refused(
    pool: urllib3.HTTPConnectionPool, changed: dict[str, Any]
) -> None:
    inputs = {"observations": [ROW] * 2, "uniforms": [0.5] * 2, "deterministic": [True] * 2}
    response = post(pool, PREDICT, {"signature_name": "act", "inputs": inputs | changed})
    assert response.status == 400
    assert "expected [2] for as many observations" in response.json()["error"]


def test_more_rows_than_allowed_are_refused_in_every_protocol(
    pool: urllib3.HTTPConnectionPool,
) -> None:
    rows = np.zeros((65_537, 4), np.float32)
    body = infer_request(rows, 0, False, data=[])
    for path, content in [
        (INFER, body),
        (PREDICT, {"instances": rows.tolist()}),
        (PREDICT, {"inputs": rows.tolist()}),
    ]:
        response = post(pool, path, content)
        assert response.status == 400
        assert re.search("65537 .*expected .*65536", response.json()["error"])


def test_the_documented_commands_are_answered(service: Service) -> None:
    text = (ROOT / "docs" / "protocols.md").read_text()
    commands = re.findall(r"^    (curl .*)$", text, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        asked = shlex.split(command.replace("http://127.0.0.1:8000", service.url))
        finished = subprocess.run([*asked, "--fail"], capture_output=True, text=True)
        assert finished.returncode == 0, command
        assert "error" not in json.loads(finished.stdout)
