"""Triton's extension of the Open Inference Protocol: tensors as bytes behind the JSON."""

import json
from typing import Any

import numpy as np
import pytest

from tests.conformance.conftest import OUTPUTS, ROWS, Server, expect_error
from tests.conformance.test_oip import FLAT, INFER, REPEATABLE, TENSOR, infer, outputs

HEADER = "Inference-Header-Content-Length"
RAW = np.array(ROWS, "<f4").tobytes()
DTYPES = {"FP32": "<f4", "INT64": "<i8"}


def tensor(raw: bytes = RAW, **changed: Any) -> dict[str, Any]:
    described = {"name": "observations", "shape": [3, 4], "datatype": "FP32"}
    return described | {"parameters": {"binary_data_size": len(raw)}} | changed


def ask(
    server: Server, body: dict[str, Any], raw: bytes = RAW, length: str | None = None
) -> tuple[Any, Any]:
    """The status and the response."""
    head = json.dumps(body).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        HEADER: str(len(head)) if length is None else length,
    }
    response = server.ask("POST", INFER, head + raw, headers)
    return response.status, response


def split(response: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON, and the arrays by name that follow it or stand in it."""
    content: bytes = response.data
    if HEADER not in response.headers:
        assert response.headers["Content-Type"] == "application/json"
        start = len(content)
    else:
        assert response.headers["Content-Type"] == "application/octet-stream"
        start = int(response.headers[HEADER])
    assert response.headers["Content-Length"] == str(len(content))
    answer = json.loads(content[:start])
    arrays = {}
    for described in answer["outputs"]:
        dtype = np.dtype(DTYPES[described["datatype"]])
        if "data" in described:
            array = np.array(described["data"], dtype)
        else:
            size = described["parameters"]["binary_data_size"]
            array = np.frombuffer(content[start : start + size], dtype)
            start += size
        arrays[described["name"]] = array.reshape(described["shape"])
    assert start == len(content)
    return answer, arrays


@pytest.fixture(scope="module")
def expected(server: Server) -> dict[str, Any]:
    return outputs(infer(server, {"inputs": [TENSOR]}))


def check(arrays: dict[str, Any], expected: dict[str, Any]) -> None:
    for name in arrays.keys() & set(REPEATABLE):
        want = np.array(expected[name], DTYPES[OUTPUTS[name][0]])
        assert np.array_equal(arrays[name].ravel(), want)


def test_bytes_in_json_out(server: Server, expected: dict[str, Any]) -> None:
    status, response = ask(server, {"inputs": [tensor()], "id": "7"})
    assert status == 200, response.data
    assert HEADER not in response.headers
    answer, arrays = split(response)
    assert answer["id"] == "7"
    check(arrays, expected)
    assert arrays.keys() == OUTPUTS.keys()


def test_json_in_bytes_out(server: Server, expected: dict[str, Any]) -> None:
    body = {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}
    response = server.ask("POST", INFER, body, {"Content-Type": "application/json"})
    assert response.status == 200, response.data
    answer, arrays = split(response)
    assert all("data" not in described for described in answer["outputs"])
    check(arrays, expected)
    assert arrays.keys() == OUTPUTS.keys()


def test_the_header_may_tell_the_length_of_a_body_without_bytes(
    server: Server, expected: dict[str, Any]
) -> None:
    status, response = ask(server, {"inputs": [TENSOR]}, raw=b"")
    assert status == 200, response.data
    check(split(response)[1], expected)


def test_each_output_may_be_bytes_or_json(server: Server, expected: dict[str, Any]) -> None:
    names = ["state_values", "actions", "action_logits", "greedy_actions"]
    for default in (True, False):
        for own in (True, False, None):
            parameters = {} if own is None else {"parameters": {"binary_data": own}}
            chosen = [{"name": name} | parameters for name in names[:2]]
            chosen += [{"name": name} for name in names[2:]]
            body = {"inputs": [tensor()], "outputs": chosen}
            status, response = ask(server, body | {"parameters": {"binary_data_output": default}})
            assert status == 200, response.data
            answer, arrays = split(response)
            assert list(arrays) == names
            as_bytes = ["data" not in described for described in answer["outputs"]]
            assert as_bytes == [default if own is None else own] * 2 + [default] * 2
            check(arrays, expected)


@pytest.mark.parametrize("length", ["", "-1", "0", "1e2", "x", "99999999999999999999", "1_0", "+5"])
def test_a_header_that_is_no_length_of_the_json_is_refused(server: Server, length: str) -> None:
    expect_error(ask(server, {"inputs": [tensor()]}, length=length)[1], 400)


@pytest.mark.parametrize("shift", [-2, -1, 1, 2, len(RAW), len(RAW) + 1])
def test_a_header_that_cuts_elsewhere_is_refused(server: Server, shift: int) -> None:
    body = {"inputs": [tensor()]}
    length = str(len(json.dumps(body)) + shift)
    expect_error(ask(server, body, length=length)[1], 400)


@pytest.mark.parametrize(
    ("changed", "raw"),
    [
        ({"parameters": {"binary_data_size": -48}}, RAW),
        ({"parameters": {"binary_data_size": 47}}, RAW),
        ({"parameters": {"binary_data_size": 49}}, RAW),
        ({"parameters": {"binary_data_size": 2**63}}, RAW),
        ({"parameters": {"binary_data_size": 2**64 + 48}}, RAW),
        ({"parameters": {"binary_data_size": "48"}}, RAW),
        ({"parameters": {"binary_data_size": 48.5}}, RAW),
        ({"parameters": {"binary_data_size": 0}}, b""),
        ({"parameters": {}}, RAW),
        ({"parameters": {}}, b""),
        ({"shape": [4, 3]}, RAW),
        ({"shape": [2, 4]}, RAW),
        ({"shape": [6, 2]}, RAW),
        ({"shape": [2**62, 4]}, RAW),
        ({"shape": [2**64 + 3, 4]}, RAW),
        ({"datatype": "FP64"}, RAW),
        ({"datatype": "FP16"}, RAW),
        ({"datatype": "BYTES"}, RAW),
        ({"data": FLAT}, RAW),
        ({}, RAW + b"\0"),
        ({}, RAW[:-1]),
        ({}, b""),
    ],
)
def test_bytes_that_are_not_what_the_json_says_are_refused(
    server: Server, changed: dict[str, Any], raw: bytes
) -> None:
    expect_error(ask(server, {"inputs": [tensor(**changed)]}, raw)[1], 400)


def test_two_tensors_cannot_share_the_bytes(server: Server) -> None:
    expect_error(ask(server, {"inputs": [tensor(), tensor()]})[1], 400)
    expect_error(ask(server, {"inputs": [tensor(), tensor(name="other")]}, RAW * 2)[1], 400)
