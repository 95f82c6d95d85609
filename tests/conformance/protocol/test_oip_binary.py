"""The Open Inference Protocol's binary tensor data extension: tensors as bytes behind the JSON.

Its text is `docs/protocol/extension_binary_data.md` of triton-inference-server/server.
"""

import json
import math
from typing import Any

import numpy as np
import pytest
import urllib3

from tests.conformance.peers.network import DTYPES, OUTPUTS
from tests.conformance.protocol.oip import (
    INFER,
    ROWS,
    TENSOR,
    Arrays,
    expect_failure,
    expect_same,
    get,
    infer,
    post,
    read,
)
from tests.conformance.protocol.test_oip_failures import OVERFLOW
from tests.conformance.servers import Server

HEADER = "Inference-Header-Content-Length"
RAW = np.array(ROWS, "<f4").tobytes()


def tensor(**changed: Any) -> dict[str, Any]:
    described = {"name": "observations", "shape": [3, 4], "datatype": "FP32"}
    return described | {"parameters": {"binary_data_size": len(RAW)}} | changed


def post_bytes(
    server: Server, body: Any, raw: bytes = RAW, length: str | None = None
) -> urllib3.BaseHTTPResponse:
    """Send the JSON and the bytes, with the JSON's length or another in the header."""
    head = json.dumps(body).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        HEADER: str(len(head)) if length is None else length,
    }
    return server.ask("POST", INFER, head + raw, headers)


def split(response: urllib3.BaseHTTPResponse) -> tuple[Arrays, list[str]]:
    """All outputs of an answer, and which of them are bytes.

    "The binary data for a tensor is delivered in the HTTP body after the JSON object", "in the same
    order", "in little-endian byte order, row major, without stride or padding".
    """
    assert response.status == 200, response.data
    content: bytes = response.data
    # "If any binary data is present ... the ... header must be provided".
    start = int(response.headers.get(HEADER, len(content)))
    answer = json.loads(content[:start])
    arrays: Arrays = {}
    as_bytes = []
    for described in answer["outputs"]:
        name = described["name"]
        if "data" in described:
            arrays |= read({"outputs": [described]})
            continue
        # "binary_data_size": "the size of the tensor binary data, in bytes".
        size = described["parameters"]["binary_data_size"]
        dtype = DTYPES[described["datatype"]].newbyteorder("<")
        assert size == math.prod(described["shape"]) * dtype.itemsize
        array = np.frombuffer(content[start : start + size], dtype)
        arrays[name] = array.reshape(described["shape"])
        as_bytes.append(name)
        start += size
    assert start == len(content)
    return arrays, as_bytes


@pytest.fixture(scope="module")
def expected(server: Server) -> Arrays:
    return read(infer(server, {"inputs": [TENSOR]}))


def test_the_extension_is_reported(server: Server) -> None:
    """ "Triton reports "binary_tensor_data" in the extensions field of its Server Metadata." """
    assert "binary_tensor_data" in get(server, "/v2")["extensions"]


def test_bytes_in_and_json_out(server: Server, expected: Arrays) -> None:
    """ "false (or not given) if the outputs should be returned as JSON" """
    arrays, as_bytes = split(post_bytes(server, {"inputs": [tensor()]}))
    assert as_bytes == []
    expect_same(arrays, expected)


def test_json_in_and_bytes_out(server: Server, expected: Arrays) -> None:
    """ "binary_data_output": "true if all outputs should be returned as binary data" """
    body = {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}
    arrays, as_bytes = split(post(server, body))
    assert sorted(as_bytes) == sorted(OUTPUTS)
    expect_same(arrays, expected)


def test_bytes_in_and_bytes_out(server: Server, expected: Arrays) -> None:
    """ "binary_data_output": "true if all outputs should be returned as binary data" """
    body = {"inputs": [tensor()], "parameters": {"binary_data_output": True}}
    arrays, as_bytes = split(post_bytes(server, body))
    assert sorted(as_bytes) == sorted(OUTPUTS)
    expect_same(arrays, expected)


def test_the_length_of_the_whole_body_is_given(server: Server) -> None:
    """ "Content-Length continues to give the full body length (as HTTP requires)." """
    body = {"inputs": [TENSOR], "parameters": {"binary_data_output": True}}
    response = post(server, body)
    assert HEADER in response.headers
    assert response.headers.get("Content-Length") == str(len(response.data))


def test_the_id_comes_back(server: Server) -> None:
    """Inference Request JSON Object: "if specified this identifier must be returned"."""
    response = post_bytes(server, {"inputs": [tensor()], "id": "42"})
    assert response.status == 200, response.data
    assert response.json()["id"] == "42"


CHOICES = [
    pytest.param(True, id="true"),
    pytest.param(False, id="false"),
    pytest.param(None, id="absent"),
]


@pytest.mark.parametrize("of_output", CHOICES)
@pytest.mark.parametrize("of_request", CHOICES)
def test_each_output_may_be_bytes_or_json(
    server: Server, expected: Arrays, of_output: bool | None, of_request: bool | None
) -> None:
    """ "If "binary_data" is specified on an output it overrides this setting." """
    names = ["state_values", "actions", "action_logits", "greedy_actions"]
    own = {} if of_output is None else {"parameters": {"binary_data": of_output}}
    body: dict[str, Any] = {
        "inputs": [tensor()],
        "outputs": [{"name": name} | (own if name in names[:2] else {}) for name in names],
    }
    if of_request is not None:
        body["parameters"] = {"binary_data_output": of_request}
    arrays, as_bytes = split(post_bytes(server, body))
    chosen = [of_request if of_output is None else of_output] * 2 + [of_request] * 2
    assert set(as_bytes) == {name for name, yes in zip(names, chosen, strict=True) if yes}
    expect_same(arrays, {name: expected[name] for name in names})


def expect_sound(server: Server) -> None:
    """A request that was refused was so for what was wrong in it: a sound one is answered."""
    assert post_bytes(server, {"inputs": [tensor()]}).status == 200


def case(
    name: str, raw: bytes = RAW, length: str | None = None, shift: int = 0, **changed: Any
) -> Any:
    """A request with a changed tensor, and the header: the JSON's length, shifted, or a text."""
    body = {"inputs": [tensor(**changed)]}
    return pytest.param(body, raw, length or str(len(json.dumps(body)) + shift), id=name)


@pytest.mark.parametrize(
    ("body", "raw", "length"),
    [
        # "must be provided to give the length of the JSON object"
        case("length not a number", length="x"),
        case("length negative", length="-1"),
        case("length beyond the body", length="99999"),
        case("length too long", shift=1),
        case("length too short", shift=-1),
        # "the size of the tensor binary data, in bytes", of all tensors "in the native size"
        case("size negative", parameters={"binary_data_size": -48}),
        case("size too small", parameters={"binary_data_size": 47}),
        case("size too large", parameters={"binary_data_size": 49}),
        case("size of a whole element less", parameters={"binary_data_size": 44}),
        case("neither size nor data", parameters={}),
        case("bytes cut off", raw=RAW[:-4]),
        case("no bytes", raw=b""),
        case("size of other rows", shape=[2, 4]),
        case("size of another datatype", datatype="FP64"),
    ],
)
def test_bytes_that_do_not_fit_are_an_error(
    server: Server, body: dict[str, Any], raw: bytes, length: str
) -> None:
    """Inference Response JSON Error Object: "must be indicated by an HTTP error status"."""
    expect_failure(post_bytes(server, body, raw, length))
    expect_sound(server)


def test_bytes_without_the_header_are_an_error(server: Server) -> None:
    """ "If any binary data is present ... the Inference-Header-Content-Length header must be
    provided".
    """
    content = json.dumps({"inputs": [tensor()]}).encode() + RAW
    expect_failure(server.ask("POST", INFER, content, {"Content-Type": "application/json"}))
    expect_sound(server)


def test_a_shape_whose_size_overflows_is_an_error(fresh_server: Server) -> None:
    """ "All tensor data types are representable as binary data in the native size"."""
    expect_failure(post_bytes(fresh_server, {"inputs": [tensor(shape=OVERFLOW)]}))
    expect_sound(fresh_server)
