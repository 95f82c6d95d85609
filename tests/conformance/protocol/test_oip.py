"""The Open Inference Protocol v2 over REST; each test quotes the sentence that it rests on."""

import re
from typing import Any

import numpy as np
import pytest

from tests.conformance.peers.network import INPUTS, OUTPUTS
from tests.conformance.protocol.oip import (
    FLAT,
    INFER,
    ROWS,
    TENSOR,
    expect_failure,
    expect_same,
    expect_tensors,
    get,
    infer,
    post,
    read,
)
from tests.conformance.servers import Server


@pytest.mark.parametrize("path", ["health/live", "health/ready", "models/{model}/ready"])
def test_health_is_a_status(server: Server, path: str) -> None:
    """KServe, Health: "A 200 status code indicates true and a 4xx status code indicates false." """
    assert server.ask("GET", f"/v2/{path}").status == 200


def test_a_model_that_is_not_there_is_not_ready(server: Server) -> None:
    """KServe, Health: "A 200 status code indicates true and a 4xx status code indicates false." """
    assert 400 <= server.ask("GET", "/v2/models/no/ready").status < 500


def test_the_server_describes_itself(server: Server) -> None:
    """Server Metadata Response JSON Object: name, version and extensions are not optional."""
    answer = get(server, "/v2")
    assert isinstance(answer["name"], str)
    assert isinstance(answer["version"], str)
    assert all(isinstance(extension, str) for extension in answer["extensions"])


def test_a_model_describes_its_tensors(server: Server) -> None:
    """Model Metadata Response JSON Object: "Variable-size dimensions are specified as -1." """
    answer = get(server, "/v2/models/{model}")
    assert answer["name"] == server.model
    assert isinstance(answer["platform"], str)
    for tensors, expected in ((answer["inputs"], INPUTS), (answer["outputs"], OUTPUTS)):
        assert {t["name"]: (t["datatype"], t["shape"]) for t in tensors} == expected


def test_the_platform_has_a_project_and_a_format(server: Server) -> None:
    """Platforms: "Platform names use the format "<project>_<format>"." """
    assert re.fullmatch(r"[^_]+_[^_]+", get(server, "/v2/models/{model}")["platform"])


def test_a_model_that_is_not_there_has_no_metadata(server: Server) -> None:
    """Model Metadata Response JSON Error Object: "must be indicated by an HTTP error status"."""
    expect_failure(server.ask("GET", "/v2/models/no"))


@pytest.mark.parametrize("path", ["", "/ready", "/infer"])
def test_each_version_may_be_requested(server: Server, path: str) -> None:
    """Model Metadata Response JSON Object: versions "may be explicitly requested via the
    appropriate endpoint. Optional for servers that don't support versions."
    """
    versions = get(server, "/v2/models/{model}").get("versions")
    assert versions, "optional, and not there"
    for version in versions:
        assert isinstance(version, str)
        of_version = f"/v2/models/{{model}}/versions/{version}{path}"
        if path == "/infer":
            answer = infer(server, {"inputs": [TENSOR]}, of_version)
            assert answer.get("model_version", version) == version
        else:
            assert server.ask("GET", of_version).status == 200


@pytest.mark.parametrize("path", ["", "/infer"])
def test_a_version_that_is_not_there_is_an_error(server: Server, path: str) -> None:
    """Inference Response JSON Error Object: "must be indicated by an HTTP error status"."""
    path = f"/v2/models/{{model}}/versions/987{path}"
    if path.endswith("infer"):
        expect_failure(post(server, {"inputs": [TENSOR]}, path))
    else:
        expect_failure(server.ask("GET", path))


def test_all_outputs_are_returned_unless_some_are_requested(server: Server) -> None:
    """Inference Request JSON Object: "if not specified all outputs produced by the model will be
    returned".
    """
    answer = infer(server, {"inputs": [TENSOR]})
    assert answer["model_name"] == server.model
    assert isinstance(answer.get("model_version", ""), str)
    expect_tensors(read(answer), rows=3)


@pytest.mark.parametrize("name", OUTPUTS)
def test_one_output_may_be_requested(server: Server, name: str) -> None:
    """Request Output: "which output tensors should be returned from the model"."""
    everything = read(infer(server, {"inputs": [TENSOR]}))
    answer = infer(server, {"inputs": [TENSOR], "outputs": [{"name": name}]})
    expect_same(read(answer), {name: everything[name]})


def test_some_outputs_may_be_requested(server: Server) -> None:
    """Request Output: "which output tensors should be returned from the model"."""
    chosen = ["state_values", "action_logits"]
    everything = read(infer(server, {"inputs": [TENSOR]}))
    answer = infer(server, {"inputs": [TENSOR], "outputs": [{"name": name} for name in chosen]})
    expect_same(read(answer), {name: everything[name] for name in chosen})


@pytest.mark.parametrize(
    "identifier",
    [
        pytest.param("42", id="digits"),
        pytest.param("an id, with spaces", id="words"),
        pytest.param("é中😀", id="unicode"),
        pytest.param('"\\\n', id="escaped"),
    ],
)
def test_the_id_comes_back(server: Server, identifier: str) -> None:
    """Inference Request JSON Object: "if specified this identifier must be returned"."""
    assert infer(server, {"inputs": [TENSOR], "id": identifier})["id"] == identifier


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_the_batch_is_given_in_row_major_order(server: Server, rows: int) -> None:
    """Tensor Data: "Tensor data must be presented in row-major order of the tensor elements." """
    together = read(infer(server, {"inputs": [TENSOR]}))
    some = TENSOR | {"shape": [rows, 4], "data": FLAT[: 4 * rows]}
    arrays = read(infer(server, {"inputs": [some]}))
    expect_tensors(arrays, rows)
    expect_same(arrays, {name: array[:rows] for name, array in together.items()})


def test_the_outputs_belong_together(server: Server) -> None:
    """Response Output: "the shape and data represents the full shape of the entire batch"."""
    arrays = read(infer(server, {"inputs": [TENSOR]}))
    exponentials = np.exp(arrays["action_logits"])
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(arrays["action_probabilities"], probabilities, rtol=1e-5)
    assert (arrays["greedy_actions"] == probabilities.argmax(axis=1)).all()
    taken = probabilities[np.arange(3), arrays["actions"]]
    np.testing.assert_allclose(arrays["log_probabilities"], np.log(taken), rtol=1e-4)


def test_data_may_be_nested(server: Server) -> None:
    """Tensor Data: "in their nature multi-dimensional representation, or as a flattened
    one-dimensional representation".
    """
    flat = read(infer(server, {"inputs": [TENSOR]}))
    expect_same(read(infer(server, {"inputs": [TENSOR | {"data": ROWS}]})), flat)


@pytest.mark.parametrize("where", ["request", "input", "output"])
def test_parameters_may_be_empty(server: Server, where: str) -> None:
    """Parameters: "The $parameters JSON describes zero or more "name"/"value" pairs"."""
    empty: dict[str, Any] = {"parameters": {}}
    body = {
        "inputs": [TENSOR | (empty if where == "input" else {})],
        "outputs": [{"name": "action_logits"} | (empty if where == "output" else {})],
    } | (empty if where == "request" else {})
    assert read(infer(server, body)).keys() == {"action_logits"}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param([0, 1, 0, -1], id="integers"),
        pytest.param([0.0, 1, 0.0, -1], id="mixed"),
        pytest.param(["0.0", "1.0", "0.0", "-1.0"], id="strings"),
        pytest.param([0.0, True, False, -1.0], id="booleans"),
    ],
)
def test_other_elements_are_coerced_or_refused(server: Server, data: list[Any]) -> None:
    """Tensor Data: "The server can decide to coerce each element to the required type or return an
    error if an unexpected value is received."
    """
    last = TENSOR | {"shape": [1, 4]}
    response = post(server, {"inputs": [last | {"data": data}]})
    if response.status != 200:
        expect_failure(response)
    else:
        expected = infer(server, {"inputs": [last | {"data": ROWS[2]}]})
        expect_same(read(response.json()), read(expected))


def test_inference_is_a_post(server: Server) -> None:
    """Inference: "An inference request is made with an HTTP POST to an inference endpoint." """
    assert 400 <= server.ask("GET", INFER).status < 600
