"""The Open Inference Protocol in JSON: what this service promises beyond its text."""

from typing import Any

import pytest

from tests.conformance.conftest import expect_error
from tests.conformance.peers.network import OUTPUTS
from tests.conformance.protocol.oip import ROWS, TENSOR, get, infer, post
from tests.conformance.protocol.test_oip_failures import FAILURES, NOT_OF_THE_SCHEMA
from tests.conformance.servers import Server


def data(answer: dict[str, Any]) -> dict[str, Any]:
    return {tensor["name"]: tensor["data"] for tensor in answer["outputs"]}


def test_health_says_what_is_so(ours: Server) -> None:
    assert get(ours, "/v2/health/live") == {"live": True}
    assert get(ours, "/v2/health/ready") == {"ready": True}
    ready = {"name": ours.model, "ready": True}
    assert get(ours, "/v2/models/{model}/ready") == ready
    assert get(ours, "/v2/models/{model}/versions/1/ready") == ready
    assert get(ours, "/v2/") == get(ours, "/v2")


def test_a_version_describes_itself_as_its_model_does(ours: Server) -> None:
    answer = get(ours, "/v2/models/{model}")
    assert "1" in answer["versions"]
    assert answer["platform"] == "tensorflow_savedmodel"
    assert get(ours, "/v2/models/{model}/versions/1") == answer


def test_outputs_are_flat_and_in_the_order_that_was_asked_for(ours: Server) -> None:
    everything = infer(ours, {"inputs": [TENSOR]})
    assert everything["model_version"] == "1"
    for tensor in everything["outputs"]:
        shape = OUTPUTS[tensor["name"]].shape
        assert len(tensor["data"]) == 3 * (shape[1] if shape[1:] else 1)
    chosen = ["state_values", "action_logits"]
    body = {"inputs": [TENSOR], "outputs": [{"name": name} for name in chosen]}
    some = infer(ours, body)
    assert [tensor["name"] for tensor in some["outputs"]] == chosen
    # To the last bit, however they are asked for.
    assert data(some) == {name: data(everything)[name] for name in chosen}
    assert data(infer(ours, body, "/v2/models/{model}/versions/1/infer")) == data(some)
    nested = data(infer(ours, {"inputs": [TENSOR | {"data": ROWS}]}))
    assert nested["action_logits"] == data(everything)["action_logits"]


def test_null_is_as_left_out_and_unknown_parameters_are_ignored(ours: Server) -> None:
    expected = data(infer(ours, {"inputs": [TENSOR]}))["action_logits"]
    nothing: dict[str, Any] = dict.fromkeys(("parameters", "id", "outputs"))
    unknown = {"priority": 3, "timeout": 5, "sequence_id": "a", "content_type": "np"}
    for body in (
        {"inputs": [TENSOR | {"parameters": None}], **nothing},
        {"inputs": [TENSOR], "outputs": []},
        {"inputs": [TENSOR | {"parameters": unknown}], "parameters": unknown, "model_name": "x"},
    ):
        answer = data(infer(ours, body))
        assert answer.keys() == OUTPUTS.keys()
        assert answer["action_logits"] == expected
    assert infer(ours, {"inputs": [TENSOR], "id": ""})["id"] == ""


@pytest.mark.parametrize("body", [*FAILURES, *NOT_OF_THE_SCHEMA])
def test_a_wrong_request_is_400(ours: Server, body: Any) -> None:
    expect_error(post(ours, body), 400)


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
def test_what_is_not_there_is_404(ours: Server, method: str, path: str) -> None:
    body = {"inputs": [TENSOR]} if method == "POST" else None
    expect_error(ours.ask(method, path, body, {"Content-Type": "application/json"}), 404)
