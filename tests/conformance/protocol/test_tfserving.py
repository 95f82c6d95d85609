"""TensorFlow Serving's REST API; each test names the section of its documentation it rests on.

The text is `tensorflow_serving/g3doc/api_rest.md` of tensorflow/serving.
"""

from typing import Any

import pytest
import urllib3

from tests.conformance.peers.network import INPUTS, OUTPUTS
from tests.conformance.protocol.oip import REPEATABLE, ROWS
from tests.conformance.servers import Server

PREDICT = "/v1/models/{model}:predict"
ACT: dict[str, list[Any]] = {
    "observations": ROWS,
    "uniforms": [0.0, 0.5, 0.99],
    "deterministic": [False, False, True],
}
DTYPES = {"FP32": "DT_FLOAT", "INT64": "DT_INT64"}


def predict(server: Server, body: Any, path: str = PREDICT) -> dict[str, Any]:
    response = server.ask("POST", path, body)
    assert response.status == 200, response.data
    answer: dict[str, Any] = response.json()
    return answer


def repeatable(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the default signature does not sample."""
    return [{name: row[name] for name in REPEATABLE} for row in rows]


def rows_of(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def versions(server: Server) -> list[dict[str, Any]]:
    response = server.ask("GET", "/v1/models/{model}")
    assert response.status == 200, response.data
    answer: list[dict[str, Any]] = response.json()["model_version_status"]
    return answer


def expect_failure(response: urllib3.BaseHTTPResponse) -> None:
    """Example: "An incorrect request URL or body returns an HTTP error status." RESTful API: "In
    case of error, all APIs will return a JSON object in the response body with error as key".
    """
    assert 400 <= response.status < 600, response.data
    assert isinstance(response.json()["error"], str)


def test_the_status_of_all_versions(ours: Server) -> None:
    """Model status API: "If omitted status for all versions is returned in the response." """
    (status,) = versions(ours)
    assert status == {
        "version": "1",
        "state": "AVAILABLE",
        "status": {"error_code": "OK", "error_message": ""},
    }


def test_the_status_of_one_version(ours: Server) -> None:
    """Model status API, URL: "/versions/${VERSION}"."""
    response = ours.ask("GET", "/v1/models/{model}/versions/1")
    assert response.status == 200
    assert response.json() == {"model_version_status": versions(ours)}


@pytest.mark.parametrize("path", ["", "/versions/1"], ids=["latest", "numbered"])
def test_the_metadata(ours: Server, path: str) -> None:
    """Model Metadata API: "returns a JSON representation of GetModelMetadataResponse"; "If omitted
    the model metadata for the latest version is returned".
    """
    response = ours.ask("GET", f"/v1/models/{{model}}{path}/metadata")
    assert response.status == 200
    answer = response.json()
    assert answer["model_spec"]["name"] == ours.model
    assert answer["model_spec"]["version"] == "1"
    signature = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]
    for key, tensors in (("inputs", INPUTS), ("outputs", OUTPUTS)):
        assert signature[key].keys() == tensors.keys()
        for name, (datatype, shape) in tensors.items():
            assert signature[key][name]["dtype"] == DTYPES[datatype]
            dimensions = signature[key][name]["tensor_shape"]["dim"]
            assert [int(dimension["size"]) for dimension in dimensions] == shape


def test_rows_of_a_single_input_are_plain_values(ours: Server) -> None:
    """Specifying input tensors in row format: "When there is only one named input, specify the
    value of instances key to be the value of the input". Response format: "If the model outputs
    multiple named tensors, we output a list of objects instead".
    """
    answer = predict(ours, {"instances": ROWS})
    assert answer.keys() == {"predictions"}
    assert [row.keys() for row in answer["predictions"]] == [OUTPUTS.keys()] * 3


def test_rows_of_several_inputs_are_objects(ours: Server) -> None:
    """Specifying input tensors in row format: "For multiple named inputs, each item is expected to
    be an object containing input name/tensor value pair". Request format: "signature_name".
    """
    answer = predict(ours, {"signature_name": "act", "instances": rows_of(ACT)})
    columns = predict(ours, {"signature_name": "act", "inputs": ACT})
    assert answer["predictions"] == rows_of(columns["outputs"])


@pytest.mark.parametrize("inputs", [ROWS, {"observations": ROWS}], ids=["tensor", "map"])
def test_columns_are_answered_by_columns(ours: Server, inputs: Any) -> None:
    """Specifying input tensors in column format: "either a single input tensor or a map of input
    name to tensors". Response format: "Each key of this object corresponds to a named output".
    """
    answer = predict(ours, {"inputs": inputs})
    assert answer.keys() == {"outputs"}
    assert answer["outputs"].keys() == OUTPUTS.keys()
    by_rows = predict(ours, {"instances": ROWS})["predictions"]
    assert repeatable(rows_of(answer["outputs"])) == repeatable(by_rows)


def test_the_signature_may_be_named(ours: Server) -> None:
    """Request format: "If unspecifed default serving signature is used." """
    named = predict(ours, {"signature_name": "serving_default", "instances": ROWS})
    unnamed = predict(ours, {"instances": ROWS})
    assert repeatable(named["predictions"]) == repeatable(unnamed["predictions"])


def test_the_version_may_be_named(ours: Server) -> None:
    """Predict API, URL: "If omitted the latest version is used." """
    named = predict(ours, {"instances": ROWS}, "/v1/models/{model}/versions/1:predict")
    latest = predict(ours, {"instances": ROWS})
    assert repeatable(named["predictions"]) == repeatable(latest["predictions"])


def test_numbers_may_be_integers_or_have_exponents(ours: Server) -> None:
    """JSON mapping: DT_FLOAT "1.1, -10.0, 0"; "Exponent notation is also accepted." """
    expected = repeatable(predict(ours, {"instances": ROWS[2:]})["predictions"])
    answer = predict(ours, b'{"instances": [[0, 1e0, 0.0, -10.0E-1]]}')
    assert repeatable(answer["predictions"]) == expected


def test_a_number_loses_precision_silently(ours: Server) -> None:
    """Floating Point Precision: 1435774380 "will be silently converted ... to 1435774336"."""
    exact = predict(ours, {"instances": [[0, 1435774336, 0, 0]]})["predictions"]
    converted = predict(ours, {"instances": [[0, 1435774380, 0, 0]]})["predictions"]
    assert repeatable(converted) == repeatable(exact)


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity"])
def test_numbers_need_not_be_finite(ours: Server, token: str) -> None:
    """JSON conformance: "allows request/response JSON objects to have such values"."""
    assert predict(ours, f'{{"instances": [[{token}, 0, 0, 0]]}}'.encode())


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="no body"),
        pytest.param(b'{"instances": [', id="cut off"),
        pytest.param([1, 2], id="an array"),
        pytest.param({}, id="neither"),
        # "A request can have either of them but NOT both."
        pytest.param({"instances": ROWS, "inputs": ROWS}, id="both"),
        pytest.param({"signature_name": "other", "instances": ROWS}, id="unknown signature"),
        pytest.param({"instances": [{"other": ROWS[0]}]}, id="unknown input"),
        pytest.param({"instances": [ROWS[0], ROWS[1][:3]]}, id="ragged"),
        pytest.param({"instances": [["x", 0, 0, 0]]}, id="not a number"),
        pytest.param({"signature_name": "act", "instances": ROWS}, id="too few inputs"),
    ],
)
def test_an_incorrect_body_is_an_error(ours: Server, body: Any) -> None:
    expect_failure(ours.ask("POST", PREDICT, body))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/no"),
        ("GET", "/v1/models/no/metadata"),
        ("POST", "/v1/models/no:predict"),
        ("POST", "/v1/models/{model}/versions/987:predict"),
        ("POST", "/v1/models/{model}/labels/none:predict"),
        ("POST", "/v1/models/{model}:classify"),
        ("POST", "/v1/models/{model}:regress"),
    ],
    ids=["status", "metadata", "model", "version", "label", "classify", "regress"],
)
def test_what_is_not_there_is_an_error(ours: Server, method: str, path: str) -> None:
    expect_failure(ours.ask(method, path, {"instances": ROWS} if method == "POST" else None))
