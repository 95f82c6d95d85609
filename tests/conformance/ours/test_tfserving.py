"""TensorFlow Serving's REST API: what its source does and its documentation does not say."""

import gzip
import json
import re
from typing import Any

import numpy as np
import pytest

from tests.conformance.conftest import expect_error
from tests.conformance.peers.network import OUTPUTS
from tests.conformance.protocol.oip import ROWS
from tests.conformance.servers import Server

PREDICT = "/v1/models/{model}:predict"
DTYPES = {"FP32": "DT_FLOAT", "INT64": "DT_INT64"}
# What `serving_default` does not sample.
REPEATABLE = ["action_logits", "action_probabilities", "greedy_actions", "state_values"]


def predict(server: Server, body: Any, path: str = PREDICT) -> Any:
    response = server.ask("POST", path, body)
    assert response.status == 200, response.data
    assert response.headers["Content-Type"] == "application/json"
    (answer,) = response.json().items()
    return answer


def repeatable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in REPEATABLE} for row in rows]


def version(server: Server) -> str:
    response = server.ask("GET", "/v1/models/{model}")
    number: str = response.json()["model_version_status"][0]["version"]
    return number


def test_the_state_of_every_version(server: Server) -> None:
    response = server.ask("GET", "/v1/models/{model}")
    assert response.status == 200
    assert response.headers["Content-Type"] == "application/json"
    (name, states) = next(iter(response.json().items()))
    assert name == "model_version_status"
    available = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert {"version": version(server)} | available in states
    assert all(isinstance(state["version"], str) for state in states)
    # It does not look at a label, and tells of one version where that is asked for.
    assert server.ask("GET", "/v1/models/{model}/labels/none").json() == response.json()
    one = server.ask("GET", f"/v1/models/{{model}}/versions/{version(server)}").json()
    assert one == {"model_version_status": [{"version": version(server)} | available]}


def test_the_signatures_as_protobuf_writes_them(server: Server) -> None:
    response = server.ask("GET", "/v1/models/{model}/metadata")
    assert response.status == 200
    answer = response.json()
    spec = {"name": server.model, "signature_name": "", "version": version(server)}
    assert answer["model_spec"] == spec
    signatures = answer["metadata"]["signature_def"]["signature_def"]
    for name in ("serving_default", "act"):
        signature = signatures[name]
        assert signature["method_name"] == "tensorflow/serving/predict"
        assert signature["defaults"] == {}
        for output, (datatype, shape) in OUTPUTS.items():
            tensor = signature["outputs"][output]
            assert tensor["dtype"] == DTYPES[datatype]
            assert tensor["tensor_shape"] == {
                "dim": [{"size": str(size), "name": ""} for size in shape],
                "unknown_rank": False,
            }
            assert re.fullmatch(r"\w+:\d+", tensor["name"])
    assert set(signatures["serving_default"]["inputs"]) == {"observations"}
    dtypes = {name: tensor["dtype"] for name, tensor in signatures["act"]["inputs"].items()}
    assert dtypes == {
        "observations": "DT_FLOAT",
        "uniforms": "DT_FLOAT",
        "deterministic": "DT_BOOL",
    }
    same = server.ask("GET", f"/v1/models/{{model}}/versions/{version(server)}/metadata")
    assert same.json() == answer


def test_rows_are_answered_by_rows_and_columns_by_columns(server: Server) -> None:
    key, rows = predict(server, {"instances": ROWS})
    assert key == "predictions"
    assert all(set(row) == set(OUTPUTS) for row in rows)
    named = [{"observations": row} for row in ROWS]
    assert repeatable(predict(server, {"instances": named})[1]) == repeatable(rows)
    for inputs in (ROWS, {"observations": ROWS}):
        key, columns = predict(server, {"inputs": inputs})
        assert key == "outputs"
        assert set(columns) == set(OUTPUTS)
        for name in REPEATABLE:
            assert columns[name] == [row[name] for row in rows]


def test_the_signature_with_the_randomness_as_an_input(server: Server) -> None:
    uniforms = [0.0, 0.5, 0.99]
    deterministic = [False, False, True]
    inputs = {"observations": ROWS, "uniforms": uniforms, "deterministic": deterministic}
    rows = [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]
    _, by_columns = predict(server, {"signature_name": "act", "inputs": inputs})
    _, by_rows = predict(server, {"signature_name": "act", "instances": rows})
    for name, values in by_columns.items():
        assert values == [row[name] for row in by_rows]
    cumulative = np.cumsum(by_columns["action_probabilities"], axis=1)[:, :-1]
    sampled = (cumulative <= np.array(uniforms)[:, np.newaxis]).sum(axis=1)
    expected = np.where(deterministic, by_columns["greedy_actions"], sampled)
    assert by_columns["actions"] == expected.tolist()


def test_numbers_are_written_so_that_their_type_is_seen(server: Server) -> None:
    response = server.ask("POST", PREDICT, {"instances": ROWS})
    text = response.data.decode()
    floats = re.findall(r'"(?:state_values|log_probabilities)":\s*([^,}\s]+)', text)
    floats += re.findall(r"\[\s*([^],{\s]+),", text)
    assert len(floats) == 4 * len(ROWS)
    assert all("." in number or "e" in number for number in floats)
    integers = re.findall(r'"(?:greedy_)?actions":\s*([^,}\s]+)', text)
    assert len(integers) == 2 * len(ROWS)
    assert all(re.fullmatch("[01]", number) for number in integers)


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances": [[0, 1, 0, -1]]}',
        b'{"instances": [[0e0, 1.0, -0.0, -1]]}',
        b'\n {"instances": [[0, 1, 0, -1]]} and more',
        b'{"instances": [[0, 1, 0, -1]], "more": ' + b"[" * 500 + b"]" * 500 + b"}",
        b'{"more": {"a": null}, "signature_name": "", "instances": [[0, 1, 0, -1]]}',
        b'{"signature_name": "serving_default", "instances": [{"observations": [0, 1, 0, -1]}]}',
        b'{"more": [NaN, Infinity, -Infinity], "instances": [[0, 1, 0, -1]]}',
    ],
)
def test_the_parser_is_as_lenient(server: Server, body: bytes) -> None:
    expected = predict(server, {"instances": [[0.0, 1.0, 0.0, -1.0]]})[1]
    assert repeatable(predict(server, body)[1]) == repeatable(expected)


def test_columns_may_hold_names_that_no_input_has(server: Server) -> None:
    inputs = {"observations": ROWS, "more": [[1, "x"], None]}
    expected = predict(server, {"inputs": ROWS})[1]
    answered = predict(server, {"inputs": inputs})[1]
    assert {n: answered[n] for n in REPEATABLE} == {n: expected[n] for n in REPEATABLE}


def test_words_in_a_path_match_in_any_case(server: Server) -> None:
    number = version(server)
    expected = repeatable(predict(server, {"instances": ROWS})[1])
    for path in (
        "/V1/Models/{model}:predict",
        f"/v1/MODELS/{{model}}/VERSIONS/{number}:predict",
        f"/v1/models/{{model}}/versions/{number}:predict",
    ):
        assert repeatable(predict(server, {"instances": ROWS}, path)[1]) == expected
    expect_error(server.ask("GET", f"/v1/models/{server.model.upper()}"), 404)


def test_a_body_may_be_packed_and_of_any_declared_type(server: Server) -> None:
    expected = repeatable(predict(server, {"instances": ROWS})[1])
    body = json.dumps({"instances": ROWS}).encode()
    for content, headers in [
        (gzip.compress(body), {"Content-Encoding": "gzip"}),
        (body, {"Content-Type": "application/x-www-form-urlencoded"}),  # curl -d
        (body, {"Content-Type": "application/json"}),
    ]:
        response = server.ask("POST", PREDICT, content, headers)
        assert response.status == 200, response.data
        assert repeatable(response.json()["predictions"]) == expected


def test_a_preflight_needs_an_origin(server: Server) -> None:
    allowed = server.ask("OPTIONS", PREDICT, headers={"Origin": "http://example.com"})
    assert allowed.status == 200
    without = server.ask("OPTIONS", PREDICT)
    assert without.status == 400
