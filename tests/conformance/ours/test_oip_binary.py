"""Binary tensors: what this service promises beyond the extension's text."""

import json
from typing import Any

import pytest

from tests.conformance.conftest import expect_error
from tests.conformance.protocol.oip import FLAT, TENSOR
from tests.conformance.protocol.test_oip_binary import HEADER, RAW, post_bytes, split, tensor
from tests.conformance.servers import Server


def test_the_header_may_give_the_length_of_a_body_without_bytes(ours: Server) -> None:
    response = post_bytes(ours, {"inputs": [TENSOR]}, raw=b"")
    assert split(response)[1] == []
    assert HEADER not in response.headers
    assert response.headers["Content-Type"] == "application/json"


def test_an_answer_with_bytes_has_their_content_type(ours: Server) -> None:
    body = {"inputs": [tensor()], "parameters": {"binary_data_output": True}}
    assert post_bytes(ours, body).headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("length", ["", "-1", "0", "1e2", "x", "99999999999999999999", "1_0", "+5"])
def test_a_header_that_is_no_length_of_the_json_is_400(ours: Server, length: str) -> None:
    expect_error(post_bytes(ours, {"inputs": [tensor()]}, length=length), 400)


@pytest.mark.parametrize("shift", [-2, -1, 1, 2, len(RAW), len(RAW) + 1])
def test_a_header_that_cuts_elsewhere_is_400(ours: Server, shift: int) -> None:
    body = {"inputs": [tensor()]}
    expect_error(post_bytes(ours, body, length=str(len(json.dumps(body)) + shift)), 400)


@pytest.mark.parametrize(
    ("changed", "raw"),
    [
        ({"parameters": {"binary_data_size": -48}}, RAW),
        ({"parameters": {"binary_data_size": 49}}, RAW),
        ({"parameters": {"binary_data_size": 2**63}}, RAW),
        ({"parameters": {"binary_data_size": 2**64 + 48}}, RAW),
        ({"parameters": {"binary_data_size": "48"}}, RAW),
        ({"parameters": {"binary_data_size": 48.5}}, RAW),
        ({"parameters": {"binary_data_size": 0}}, b""),
        ({"parameters": {}}, b""),
        ({"shape": [4, 3]}, RAW),
        ({"shape": [6, 2]}, RAW),
        ({"shape": [2**62, 4]}, RAW),
        ({"shape": [2**64 + 3, 4]}, RAW),
        ({"datatype": "FP16"}, RAW),
        ({"datatype": "BYTES"}, RAW),
        ({"data": FLAT}, RAW),
        ({}, RAW + b"\0"),
        ({}, RAW[:-1]),
    ],
)
def test_bytes_that_are_not_what_the_json_says_are_400(
    ours: Server, changed: dict[str, Any], raw: bytes
) -> None:
    expect_error(post_bytes(ours, {"inputs": [tensor(**changed)]}, raw), 400)


def test_two_tensors_cannot_share_the_bytes(ours: Server) -> None:
    expect_error(post_bytes(ours, {"inputs": [tensor(), tensor()]}), 400)
    expect_error(post_bytes(ours, {"inputs": [tensor(), tensor(name="other")]}, RAW * 2), 400)
