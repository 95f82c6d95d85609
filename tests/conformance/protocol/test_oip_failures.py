"""The Open Inference Protocol v2 over REST: requests that cannot be answered.

Inference Response JSON Error Object: "A failed inference request must be indicated by an HTTP error
status (typically 400). The HTTP body must contain the $inference_error_response object." Which
status, and which words, the text leaves to the server.
"""

from typing import Any

import pytest

from tests.conformance.protocol.oip import FLAT, ROWS, TENSOR, expect_failure, infer, post, read
from tests.conformance.servers import Server


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in TENSOR.items() if name != field}


def tensor(**changed: Any) -> dict[str, Any]:
    return {"inputs": [TENSOR | changed]}


def case(name: str, body: Any) -> Any:
    return pytest.param(body, id=name)


# HTTP/REST: "The HTTP/REST API uses JSON". Inference Request JSON Object: it "is required in the
# HTTP body of the POST request", and "inputs" is not optional.
NO_REQUEST = [
    case("no body", b""),
    case("cut off", b'{"inputs": ['),
    case("an array", [1]),
    case("a number", 3),
    case("NaN", b'{"inputs": [{"name": "observations", "shape": [1, 4], "datatype": "FP32", '
         b'"data": [NaN, 0, 0, 0]}]}'),
    case("no inputs", {}),
    case("inputs not an array", {"inputs": 3}),
    case("empty inputs", {"inputs": []}),
    case("input not an object", {"inputs": [3]}),
]  # fmt: skip

# Request Input: name, shape, datatype and data are not optional. "The name of the input tensor",
# and the model's metadata has "The inputs required by the model".
NO_INPUT = [
    case("no name", {"inputs": [without("name")]}),
    case("name not a string", tensor(name=3)),
    case("unknown name", tensor(name="other")),
    case("name in another case", tensor(name="Observations")),  # "All strings are case-sensitive."
    case("no shape", {"inputs": [without("shape")]}),
    case("no datatype", {"inputs": [without("datatype")]}),
    case("unknown datatype", tensor(datatype="FP31")),
    case("datatype null", tensor(datatype=None)),
    case("datatype in another case", tensor(datatype="fp32")),
    case("no data", {"inputs": [without("data")]}),
    case("data null", tensor(data=None)),
    case("data a string", tensor(data="AAAA")),  # Tensor Data: "provided in a JSON array"
]

# Request Input: "the shape and data must represent the full shape and contents of the entire
# batch. ... Each dimension must be an integer representable as an unsigned 64-bit integer value."
OVERFLOW = [2**62 + 3, 4]  # 12 elements for whoever computes with 64 bits
NO_BATCH = [
    case("too few numbers", tensor(data=FLAT[:-1])),
    case("too many numbers", tensor(data=[*FLAT, 1.0])),
    case("fewer rows", tensor(shape=[2, 4])),
    case("more rows", tensor(shape=[4, 4])),
    case("one dimension", tensor(shape=[3])),
    case("no dimension", tensor(shape=[])),
    case("negative", tensor(shape=[-3, -4])),
    case("not an integer", tensor(shape=[3.5, 4])),
    case("string", tensor(shape=["x", 4])),
    case("more than 64 bits", tensor(shape=[2**64 + 3, 4])),
    case("ragged", tensor(data=[*ROWS[:2], ROWS[2][:3]])),
    case("flat and nested", tensor(data=[*FLAT[:-1], [1.0]])),
    # The model's metadata: [-1, 4].
    case("of another model", tensor(shape=[4, 3])),
]

# Request Output: "The name of the output tensor", of which the model has none.
NO_OUTPUT = [
    case("unknown output", {"inputs": [TENSOR], "outputs": [{"name": "other"}]}),
    case("output in another case", {"inputs": [TENSOR], "outputs": [{"name": "Actions"}]}),
]

FAILURES = [*NO_REQUEST, *NO_INPUT, *NO_BATCH, *NO_OUTPUT]

# Outside of the schemas, yet answerable: a server that does not look may answer.
NOT_OF_THE_SCHEMA = [
    case("id a number", {"inputs": [TENSOR], "id": 3}),
    case("parameters a number", {"inputs": [TENSOR], "parameters": 3}),
    case("outputs a string", {"inputs": [TENSOR], "outputs": "actions"}),
    case("output without a name", {"inputs": [TENSOR], "outputs": [{}]}),
    case("a string among numbers", tensor(data=[*FLAT[:-1], "1.0"])),
]


@pytest.mark.parametrize("body", FAILURES)
def test_it_is_told_as_an_error(server: Server, body: Any) -> None:
    expect_failure(post(server, body))
    infer(server, {"inputs": [TENSOR]})  # not because nothing is answered any more


@pytest.mark.parametrize("body", NOT_OF_THE_SCHEMA)
def test_it_is_told_as_an_error_or_answered(server: Server, body: Any) -> None:
    response = post(server, body)
    if response.status == 200:
        assert "action_logits" in read(response.json())
    else:
        expect_failure(response)


def test_a_model_that_is_not_there_cannot_infer(server: Server) -> None:
    expect_failure(post(server, {"inputs": [TENSOR]}, "/v2/models/no/infer"))


def test_the_name_of_a_model_is_case_sensitive(server: Server) -> None:
    """KServe, HTTP/REST: "All strings in all contexts are case-sensitive." """
    path = f"/v2/models/{server.model.upper()}/infer"
    expect_failure(post(server, {"inputs": [TENSOR]}, path))


def test_a_shape_whose_size_overflows_is_an_error(fresh_server: Server) -> None:
    """Request Input: "the shape and data must represent the full shape and contents"."""
    expect_failure(post(fresh_server, tensor(shape=OVERFLOW)))
    infer(fresh_server, {"inputs": [TENSOR]})
