"""The Open Inference Protocol v2 over REST, in JSON."""

from typing import Any

import pytest

from tests.conformance.conftest import OUTPUTS, ROWS, Server, expect_error

INFER = "/v2/models/{model}/infer"
FLAT = [number for row in ROWS for number in row]
TENSOR = {"name": "observations", "shape": [3, 4], "datatype": "FP32", "data": FLAT}
REPEATABLE = ["action_logits", "action_probabilities", "greedy_actions", "state_values"]


def infer(server: Server, body: Any, path: str = INFER) -> dict[str, Any]:
    response = server.ask("POST", path, body, {"Content-Type": "application/json"})
    assert response.status == 200, response.data
    assert response.headers["Content-Type"] == "application/json"
    answer: dict[str, Any] = response.json()
    return answer


def outputs(answer: dict[str, Any]) -> dict[str, Any]:
    return {tensor["name"]: tensor["data"] for tensor in answer["outputs"]}


def test_the_server_tells_its_name_version_and_extensions(server: Server) -> None:
    for path in ("/v2", "/v2/"):
        response = server.ask("GET", path)
        assert response.status == 200
        answer = response.json()
        assert isinstance(answer["name"], str)
        assert isinstance(answer["version"], str)
        assert "binary_tensor_data" in answer["extensions"]


def test_server_and_model_are_live_and_ready(server: Server) -> None:
    assert server.ask("GET", "/v2/health/live").json() == {"live": True}
    assert server.ask("GET", "/v2/health/ready").json() == {"ready": True}
    ready = {"name": server.model, "ready": True}
    assert server.ask("GET", "/v2/models/{model}/ready").json() == ready
    assert server.ask("GET", "/v2/models/{model}/versions/1/ready").json() == ready


def test_a_model_tells_its_tensors(server: Server) -> None:
    answer = server.ask("GET", "/v2/models/{model}").json()
    assert answer["name"] == server.model
    assert "1" in answer["versions"]
    assert answer["platform"] == "tensorflow_savedmodel"
    observations = {"name": "observations", "datatype": "FP32", "shape": [-1, 4]}
    assert answer["inputs"] == [observations]
    described = {t["name"]: (t["datatype"], t["shape"]) for t in answer["outputs"]}
    assert described == OUTPUTS
    assert server.ask("GET", "/v2/models/{model}/versions/1").json() == answer


def test_all_outputs_are_answered_unless_some_are_chosen(server: Server) -> None:
    answer = infer(server, {"inputs": [TENSOR]})
    assert answer["model_name"] == server.model
    assert answer["model_version"] == "1"
    assert {tensor["name"] for tensor in answer["outputs"]} == set(OUTPUTS)
    for tensor in answer["outputs"]:
        datatype, shape = OUTPUTS[tensor["name"]]
        assert tensor["datatype"] == datatype
        assert tensor["shape"] == [3, *shape[1:]]
        assert len(tensor["data"]) == 3 * (shape[1] if shape[1:] else 1)
    no_outputs: list[list[Any] | None] = [[], None]
    for nothing in no_outputs:
        body = {"inputs": [TENSOR], "outputs": nothing}
        assert len(infer(server, body)["outputs"]) == len(OUTPUTS)
    chosen = ["state_values", "action_logits"]
    body = {"inputs": [TENSOR], "outputs": [{"name": name} for name in chosen]}
    some = infer(server, body)
    assert [tensor["name"] for tensor in some["outputs"]] == chosen
    assert outputs(some) == {name: outputs(answer)[name] for name in chosen}
    assert outputs(infer(server, body, "/v2/models/{model}/versions/1/infer")) == outputs(some)


@pytest.mark.parametrize("id_", ["", "42", "an id", "\u00e9\u4e2d\U0001f600"])
def test_the_id_comes_back(server: Server, id_: str) -> None:
    assert infer(server, {"inputs": [TENSOR], "id": id_})["id"] == id_


def test_data_may_be_flat_or_nested(server: Server) -> None:
    flat = outputs(infer(server, {"inputs": [TENSOR]}))
    nested = outputs(infer(server, {"inputs": [TENSOR | {"data": ROWS}]}))
    assert {n: flat[n] for n in REPEATABLE} == {n: nested[n] for n in REPEATABLE}


def test_what_some_clients_leave_out_and_others_add(server: Server) -> None:
    tensor = TENSOR | {"parameters": None}
    body: dict[str, Any] = {"inputs": [tensor], "parameters": None, "id": None, "outputs": None}
    expected = outputs(infer(server, {"inputs": [TENSOR]}))
    answer = outputs(infer(server, body))
    assert answer["action_logits"] == expected["action_logits"]
    unknown = {"priority": 3, "timeout": 5, "sequence_id": "a", "content_type": "np"}
    body = {"inputs": [TENSOR | {"parameters": unknown}], "parameters": unknown, "model_name": "x"}
    assert outputs(infer(server, body))["action_logits"] == expected["action_logits"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"3",
        b'{"inputs": [{"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": [NaN]}',
        {},
        {"inputs": 3},
        {"inputs": []},
        {"inputs": [3]},
        {"inputs": [TENSOR | {"name": "other"}]},
        {"inputs": [TENSOR | {"name": 3}]},
        {"inputs": [TENSOR | {"datatype": "FP31"}]},
        {"inputs": [TENSOR | {"datatype": None}]},
        {"inputs": [TENSOR | {"shape": [3]}]},
        {"inputs": [TENSOR | {"shape": [2, 4]}]},
        {"inputs": [TENSOR | {"shape": [4, 3]}]},
        {"inputs": [TENSOR | {"shape": [-3, -4]}]},
        {"inputs": [TENSOR | {"shape": [3.5, 4]}]},
        {"inputs": [TENSOR | {"shape": [2**63, 4]}]},
        {"inputs": [TENSOR | {"shape": [2**62, 4]}]},
        {"inputs": [TENSOR | {"shape": []}]},
        {"inputs": [TENSOR | {"data": None}]},
        {"inputs": [TENSOR | {"data": "AAAA"}]},
        {"inputs": [TENSOR | {"data": FLAT[:-1]}]},
        {"inputs": [TENSOR | {"data": [*FLAT, 1.0]}]},
        {"inputs": [TENSOR | {"data": [*FLAT[:-1], "1.0"]}]},
        {"inputs": [TENSOR | {"data": [*FLAT[:-1], [1.0]]}]},
        {"inputs": [TENSOR | {"data": [*ROWS[:2], ROWS[2][:3]]}]},
        {"inputs": [{name: TENSOR[name] for name in ("name", "shape", "datatype")}]},
        {"inputs": [{name: TENSOR[name] for name in ("name", "shape", "data")}]},
        {"inputs": [{name: TENSOR[name] for name in ("shape", "datatype", "data")}]},
        {"inputs": [TENSOR], "outputs": [{"name": "other"}]},
        {"inputs": [TENSOR], "outputs": [{}]},
        {"inputs": [TENSOR], "outputs": "actions"},
        {"inputs": [TENSOR], "id": 3},
        {"inputs": [TENSOR], "parameters": 3},
    ],
)
def test_a_wrong_request_is_an_error_object(server: Server, body: Any) -> None:
    expect_error(server.ask("POST", INFER, body, {"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/no"),
        ("GET", "/v2/models/no/ready"),
        ("POST", "/v2/models/no/infer"),
        ("GET", "/v2/models/{model}/versions/987"),
        ("GET", "/v2/models/{model}/versions/987/ready"),
        ("POST", "/v2/models/{model}/versions/987/infer"),
        ("GET", "/v2/models/{model}/versions/x"),
        ("GET", "/v2/other"),
        ("POST", "/v2/models/{model}/other"),
    ],
)
def test_what_is_not_there_is_an_error_object(server: Server, method: str, path: str) -> None:
    body = {"inputs": [TENSOR]} if method == "POST" else None
    response = server.ask(method, path, body, {"Content-Type": "application/json"})
    expect_error(response, 404)
