"""TensorFlow Serving's REST API: the status and the words of every error, from its source."""

from typing import Any

import pytest

from tests.conformance.conftest import expect_error
from tests.conformance.servers import Server

PREDICT = "/v1/models/{model}:predict"
ROW = [0.0, 1.0, 0.0, -1.0]
ACT = {"observations": ROW, "uniforms": 0.5, "deterministic": False}


def act(**inputs: Any) -> dict[str, Any]:
    return {"signature_name": "act", **inputs}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"[1, 2", "JSON Parse error: "),
        (b'{"instances": x}', "JSON Parse error: Invalid value. at offset: 14"),
        (b"nonsense", "JSON Parse error: Invalid value. at offset: "),
        ([1, 2], "Is not object"),
        ("text", "Is not object"),
        ({}, "Missing 'inputs' or 'instances' key"),
        (
            {"signature_name": 5, "instances": [ROW]},
            "'signature_name' key must be a string value.",
        ),
        (
            {"signature_name": None, "instances": [ROW]},
            "'signature_name' key must be a string value.",
        ),
        (
            {"signature_name": "other", "instances": [ROW]},
            'Serving signature name: "other" not found in signature def',
        ),
        (
            {"instances": [ROW], "inputs": [ROW]},
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist",
        ),
        ({"instances": 3}, "Expecting 'instances' to be an list/array"),
        ({"instances": {"observations": ROW}}, "Expecting 'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        (
            act(instances=[ROW]),
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map",
        ),
        (
            act(inputs=[ROW]),
            "inputs is a plain value/list, but expecting an object",
        ),
        (
            act(inputs={"observations": [ROW], "uniforms": [0.5]}),
            "Missing named input: deterministic in 'inputs' object.",
        ),
        (
            {"instances": [{"observations": ROW}, ROW]},
            "Expecting object but got list at item 1 of input list",
        ),
        (
            {"instances": [ROW, {"observations": ROW}]},
            "Expecting value/list but got object at item 1 of input list",
        ),
        (
            {"instances": [{"other": ROW}]},
            "Failed to process element: 0 key: other of 'instances' list. Error: ",
        ),
        ({"instances": [{"other": ROW}]}, "does not have named input: other"),
        ({"instances": [{"observations": ROW}, {}]}, "keys must be equal to: observations"),
        (
            act(instances=[{"observations": ROW, "uniforms": 0.5}]),
            "keys must be equal to: deterministic,observations,uniforms",
        ),
        ({"instances": [ROW, ROW[:3]]}, "Expecting tensor size: 4 but got: 3"),
        (
            {"instances": [[[1, 2, 3], [4, 5, 6]], [[1, 2], [3, 4], [5, 6]]]},
            "Expecting shape [2,3] but got: [3,2]",
        ),
        (
            {"instances": [[0, 1, 0, "x"]]},
            'JSON Value: "x" Type: String is not of expected type: float',
        ),
        ({"instances": [[0, 1, 0, "1"]]}, "is not of expected type: float"),
        ({"instances": [[0, 1, 0, None]]}, "Type: Null is not of expected type: float"),
        ({"instances": [[0, 1, 0, True]]}, "Type: True is not of expected type: float"),
        ({"instances": [[0, 1, 0, {}]]}, "Type: Object is not of expected type: float"),
        ({"instances": [{"b64": "AAAA"}]}, "is not of expected type: float"),
        (
            act(instances=[ACT | {"deterministic": 1}]),
            "Type: Number is not of expected type: bool",
        ),
        (
            act(inputs={"observations": [ROW], "uniforms": [0.5], "deterministic": ["no"]}),
            "Type: String is not of expected type: bool",
        ),
        ({"instances": [[[0], 1, 0, 0]]}, "found at incorrect level: "),
        ({"instances": [[0, [1], 0, 0]]}, "Encountered list at unexpected level: "),
        (
            {"inputs": [ROW, ROW[:3]]},
            "Encountered list at unexpected size: 3 at level: 1 expected size: 4",
        ),
        # From here on the tensors are sound, and not those of the signature: any words.
        ({"instances": [ROW[:3]]}, ""),
        ({"instances": [ROW * 2]}, ""),
        ({"instances": [[ROW]]}, ""),
        ({"instances": ROW}, ""),
        ({"inputs": ROW}, ""),
        ({"inputs": 3}, ""),
        ({"inputs": []}, ""),
    ],
)
def test_a_wrong_request_is_told_in_tensorflow_servings_words(
    server: Server, body: Any, message: str
) -> None:
    expect_error(server.ask("POST", PREDICT, body), 400, message)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/v1/models/no", 404, "Could not find any versions of model no"),
        (
            "GET",
            "/v1/models/{model}/versions/987",
            404,
            "Could not find version 987 of model {model}",
        ),
        ("GET", "/v1/models/no/metadata", 404, "Servable not found for request: Latest(no)"),
        (
            "GET",
            "/v1/models/{model}/versions/987/metadata",
            404,
            "Servable not found for request: Specific({model}, 987)",
        ),
        (
            "GET",
            "/v1/models/{model}/labels/none/metadata",
            400,
            "Unrecognized servable version label: none",
        ),
        ("POST", "/v1/models/no:predict", 404, "Servable not found for request: Latest(no)"),
        (
            "POST",
            "/v1/models/{model}/versions/987:predict",
            404,
            "Servable not found for request: Specific({model}, 987)",
        ),
        (
            "POST",
            "/v1/models/{model}/labels/none:predict",
            400,
            "Unrecognized servable version label: none",
        ),
        (
            "POST",
            "/v1/models/{model}/versions/98765432109876543210:predict",
            400,
            "Failed to convert version: 98765432109876543210 to numeric.",
        ),
        (
            "GET",
            "/v1/models/{model}/versions/98765432109876543210",
            400,
            "Failed to convert version: 98765432109876543210 to numeric.",
        ),
    ],
)
def test_what_is_not_there(
    server: Server, method: str, path: str, status: int, message: str
) -> None:
    body = {"instances": [ROW]} if method == "POST" else None
    response = server.ask(method, path, body)
    expect_error(response, status, message.replace("{model}", server.model))


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/{model}:predict"),
        ("POST", "/v1/models/{model}/metadata"),
        ("POST", "/v1/models/{model}"),
        ("POST", "/v1/models"),
        ("GET", "/v1/models/{model}/versions/HELLO"),
        ("GET", "/v1/models/{model}/versions/-1"),
        ("POST", "/v1/models/{model}/versions/HELLO:predict"),
        ("POST", "/v1/models/{model}/versions/1/labels/a:predict"),
        ("POST", "/v1/models/{model}:other"),
        ("POST", "/v1/models/a:b:predict"),
        ("GET", "/v1/models/{model}/other"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/other"),
        ("PUT", "/v1/models/{model}"),
        ("DELETE", "/v1/models/{model}:predict"),
    ],
)
def test_any_other_path_or_method_is_malformed(server: Server, method: str, path: str) -> None:
    response = server.ask(method, path)
    message = f"Malformed request: {method} {path}".replace("{model}", server.model)
    expect_error(response, 400, message)


def test_the_body_is_parsed_before_the_model_is_looked_up(server: Server) -> None:
    expect_error(server.ask("POST", "/v1/models/no:predict", b"x"), 400, "JSON Parse error")
    wrong = {"signature_name": 5}
    expect_error(server.ask("POST", "/v1/models/no:predict", wrong), 400, "'signature_name' key")
    # But not what it says of tensors, which only the model can tell.
    expect_error(server.ask("POST", "/v1/models/no:predict", {}), 404, "Servable not found")


@pytest.mark.parametrize(
    ("method", "kind"), [("classify", "classification"), ("regress", "regression")]
)
def test_other_methods_are_those_of_a_model_without_such_signatures(
    server: Server, method: str, kind: str
) -> None:
    path = f"/v1/models/{{model}}:{method}"
    example = {"examples": [{"observations": ROW}]}
    expect_error(
        server.ask("POST", path, example),
        400,
        f"Expected {kind} signature method_name to be tensorflow/serving/{method}. "
        "Was: tensorflow/serving/predict",
    )
    unknown = example | {"signature_name": "other"}
    message = "No signature was found with the name: other"
    expect_error(server.ask("POST", path, unknown), 400, message)
    missing = "key 'examples' is expected and was not found"
    expect_error(server.ask("POST", path, {}), 400, missing)
    expect_error(server.ask("POST", path, {"examples": 3}), 400, "value to be an list/array")
    expect_error(server.ask("POST", path, {"examples": []}), 400, "value is an empty array")
    expect_error(server.ask("POST", f"/v1/models/no:{method}", example), 404, "Servable not found")


def test_outside_of_its_prefix_nothing_is_found(server: Server) -> None:
    assert server.ask("GET", "/v1").status == 404
    assert server.ask("GET", "/v3/models").status == 404
