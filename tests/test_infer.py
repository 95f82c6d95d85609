"""The Open Inference Protocol: datatypes, and this service's own parameters."""

import json
import re
from typing import Any

import numpy as np
import pytest
import urllib3

from tests.test_act import ROW
from tests.test_protocols import HEADER, INFER, answer, infer_request, pool, post

__all__ = ["pool"]  # a fixture


def test_infer_without_a_seed_is_replayed_by_the_one_it_returns(
    pool: urllib3.HTTPConnectionPool,
) -> None:
    body: dict[str, Any] = {
        "inputs": infer_request(np.zeros((64, 4)), 0, False, data=[0.0] * 256)["inputs"]
    }
    drawn = answer(pool, INFER, body)
    replayed = answer(pool, INFER, body | {"parameters": drawn["parameters"]})
    assert replayed == drawn
    assert answer(pool, INFER, body)["parameters"] != drawn["parameters"]


def test_infer_tells_of_rows_that_training_never_saw(pool: urllib3.HTTPConnectionPool) -> None:
    rows = np.array([ROW, [9, 0, 0, 0], [0, 0, 0, 9]], np.float32)
    body = infer_request(rows, 0, False, data=rows.tolist())
    lines = answer(pool, INFER, body)["parameters"]["warnings"].split("\n")
    expected = answer(pool, "/act", {"observations": rows.tolist(), "seed": 0})["warnings"]
    assert lines == expected
    assert len(lines) == 2


SAME = [[1, 0, 0, 1], [0, 1, 1, 0]]


@pytest.mark.parametrize(
    ("datatype", "values"),
    [
        *((name, SAME) for name in ("UINT8", "UINT16", "UINT32", "UINT64")),
        *((name, [[-1, 0, 0, 1], SAME[1]]) for name in ("INT8", "INT16", "INT32", "INT64")),
        ("INT64", [[2**63 - 1, -(2**63), 2**53 + 1, 2**24 + 1], SAME[0]]),
        ("UINT64", [[2**64 - 1, 2**63 + 1, 2**53 + 1, 2**24 + 1], SAME[0]]),
        ("INT32", [[2**31 - 1, -(2**31), 2**24 + 1, 33_554_435], SAME[0]]),
        ("FP16", [[0.5, -0.25, 65504.0, 6e-8], SAME[0]]),
        ("FP32", [[0.1, -3.25, 1e-45, 1e15], SAME[0]]),
        ("FP64", [[0.1, -1e-300, 1.00000005960464477, 1e15], SAME[0]]),
    ],
)
def test_a_tensor_of_any_datatype_is_the_same_in_json_and_in_bytes(
    pool: urllib3.HTTPConnectionPool, datatype: str, values: list[list[float]]
) -> None:
    code = datatype.lower().replace("uint", "u").replace("int", "i").replace("fp", "f")
    size = int(re.sub(r"\D", "", code)) // 8
    array = np.array(values, f"<{code[0]}{size}")
    body = {"parameters": {"deterministic": True, "seed": 0}}
    tensor = {"name": "observations", "shape": [2, 4], "datatype": datatype}
    by_json = answer(pool, INFER, body | {"inputs": [tensor | {"data": values}]})
    head = json.dumps(
        body | {"inputs": [tensor | {"parameters": {"binary_data_size": array.nbytes}}]}
    ).encode()
    response = post(pool, INFER, head + array.tobytes(), {HEADER: str(len(head))})
    assert response.status == 200, response.data
    assert response.json() == by_json
    # And as those numbers are in /act, which takes them as JSON does.
    acted = answer(
        pool,
        "/act",
        {
            "observations": (array.tolist() if datatype == "FP16" else values),
            "deterministic": True,
        },
    )
    logits = next(t for t in by_json["outputs"] if t["name"] == "action_logits")
    assert np.reshape(logits["data"], (2, 2)).tolist() == acted["action_logits"]


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        ("UINT8", -1, "is not UINT8"),
        ("UINT8", 256, "is not UINT8"),
        ("INT16", 32_768, "is not INT16"),
        ("INT32", 0.5, "is not INT32"),
        ("UINT64", 2**65, "is not UINT64"),
        ("FP16", 65_520, "is not finite"),
        ("FP32", 1e39, "is beyond float32"),
        ("FP64", -1e39, "is beyond float32"),
        ("FP64", 10**400, "beyond"),
        ("FP32", None, "data[3]: expected only numbers, got null"),
        ("FP32", True, "data[3]: expected only numbers, got boolean"),
        ("FP32", "1", "data[3]: expected only numbers, got string"),
        ("BOOL", True, "'BOOL' is not one of"),
        ("BYTES", "a", "'BYTES' is not one of"),
    ],
)
def test_a_value_that_its_datatype_or_float32_cannot_hold_is_refused(
    pool: urllib3.HTTPConnectionPool, datatype: str, value: Any, message: str
) -> None:
    tensor = {"name": "observations", "shape": [1, 4], "datatype": datatype}
    response = post(pool, INFER, {"inputs": [tensor | {"data": [0, 0, 0, value]}]})
    assert response.status == 400
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"seed": -1}, "parameters.seed"),
        ({"seed": 2**53}, "parameters.seed"),
        ({"seed": 1.5}, "parameters.seed"),
        ({"seed": "7"}, "parameters.seed"),
        ({"seed": True}, "parameters.seed"),
        ({"deterministic": 1}, "parameters.deterministic"),
        ({"deterministic": "true"}, "parameters.deterministic"),
        ({"binary_data_output": 1}, "parameters.binary_data_output"),
    ],
)
def test_a_parameter_of_the_wrong_type_is_refused(
    pool: urllib3.HTTPConnectionPool, parameters: dict[str, Any], message: str
) -> None:
    tensor = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": ROW}
    response = post(pool, INFER, {"inputs": [tensor], "parameters": parameters})
    assert response.status == 400
    assert response.json()["error"].startswith(message)


@pytest.mark.parametrize(
    ("where", "parameters", "reason"),
    [
        ("inputs", {"shared_memory_region": "r"}, "inputs[0]: shared memory is not supported"),
        ("outputs", {"shared_memory_region": "r"}, "outputs: 'actions': shared memory is not"),
        ("outputs", {"classification": 2}, "outputs: 'actions': classification is not supported"),
    ],
)
def test_what_only_triton_does_is_refused_and_not_ignored(
    pool: urllib3.HTTPConnectionPool, where: str, parameters: dict[str, Any], reason: str
) -> None:
    body = infer_request(np.array([ROW], np.float32), 0, False, data=ROW)
    body["outputs"] = [{"name": "actions"}]
    for left_out in (dict.fromkeys(parameters), {}):  # tritonclient writes null
        body[where][0]["parameters"] = left_out
        assert post(pool, INFER, body).status == 200
    body[where][0]["parameters"] = parameters
    refused = post(pool, INFER, body)
    assert refused.status == 400
    assert reason in refused.json()["error"]


def test_each_output_is_sent_as_it_asks_for_and_else_as_the_request_does(
    pool: urllib3.HTTPConnectionPool,
) -> None:
    body = infer_request(np.array([ROW], np.float32), 0, False, data=ROW)
    body["parameters"]["binary_data_output"] = True
    body["outputs"] = [
        {"name": "actions", "parameters": {"binary_data": False}},
        {"name": "state_values", "parameters": {"binary_data": True}},
        {"name": "log_probabilities"},
    ]
    response = post(pool, INFER, body)
    head = json.loads(response.data[: int(response.headers[HEADER])])
    sent = {one["name"]: one.get("parameters", one.get("data")) for one in head["outputs"]}
    assert sent.pop("actions") in ([0], [1])
    size = {"binary_data_size": 4}
    assert sent == {"state_values": size, "log_probabilities": size}
