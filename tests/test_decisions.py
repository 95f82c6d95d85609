"""Requests of any protocol are decided together, and each gets what it would have got alone."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.api.app import Api, create_api
from serving.api.decisions import Call
from serving.api.keys import Keys
from serving.api.messages import Request
from serving.errors import InvalidRequestError
from serving.metrics import Metrics
from serving.policy.artefact import Actions, Card, Evaluation, Evaluations, Observations
from serving.policy.decide import ActResult, DecisionRequest, SamplingSpec, decide_many
from serving.policy.observations import FloatArray, Ranges
from serving.policy.outputs import PolicyOutputs
from serving.registry.repository import Repository
from serving.registry.trial import Trials
from serving.settings import Settings
from tests.conftest import Trained
from tests.test_act import NAMES, ROW

INFER = "/v2/models/cartpole/infer"
PREDICT = "/v1/models/cartpole:predict"


@pytest.fixture(scope="module")
def repository(trained: Trained, trials: Trials) -> Repository:
    loaded = Repository(Settings(models=trained.models), Metrics(), trials)
    loaded.refresh()
    return loaded


@pytest.fixture(scope="module")
def api(repository: Repository) -> Api:
    return create_api(Settings(), repository, Metrics(), Keys([]))


def call(api: Api, path: str, content: Any, **headers: str) -> Call:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    found = api.decisions.match("POST", path)
    assert found is not None
    fields = {"content-type": "application/json", **headers}
    return Call(*found, Request("POST", path, fields, body, "127.0.0.1"), "id")


def bodies(api: Api, *calls: Call) -> list[tuple[int, bytes]]:
    return [(answer.status, answer.body) for answer in api.decisions.answer(calls)]


def infer(rows: list[list[float]], seed: int, *, nested: bool = False) -> dict[str, Any]:
    data = rows if nested else [number for row in rows for number in row]
    tensor = {"name": "observations", "shape": [len(rows), 4], "datatype": "FP32", "data": data}
    return {"inputs": [tensor], "parameters": {"seed": seed}}


def test_only_decisions_are_in_the_table(api: Api) -> None:
    for path in (
        "/act",
        "/models/cartpole/act",
        INFER,
        f"{PREDICT}",
        "/v1/models/a/labels/b:predict",
    ):
        assert api.decisions.match("POST", path) is not None
        assert api.decisions.match("GET", path) is None
    for path in ("/", "/act/", "/models", "/v1/models/cartpole", "/models/a/b/act", "/v2/models"):
        assert api.decisions.match("POST", path) is None


def made(api: Api, kind: str, rows: list[list[float]], seed: int) -> Call:
    if kind in ("infer", "nested"):
        return call(api, INFER, infer(rows, seed, nested=kind == "nested"))
    if kind == "named":
        named = [dict(zip(NAMES, row, strict=True)) for row in rows]
        return call(api, "/models/cartpole/act", {"observations": named, "seed": seed})
    return call(api, "/act", {"observations": [[1, 2, 3]] if kind == "bad" else rows, "seed": seed})


finite = st.floats(-10, 10, width=32)
matrices = st.lists(st.lists(finite, min_size=4, max_size=4), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["act", "named", "infer", "nested", "bad"]),
            matrices,
            st.integers(0, 2**53 - 1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_mixture_of_protocols_is_answered_as_each_alone(
    api: Api, drawn: list[tuple[str, list[list[float]], int]]
) -> None:
    calls = [made(api, *one) for one in drawn]
    together = bodies(api, *calls)
    assert together == [bodies(api, one)[0] for one in calls]
    for (kind, rows, seed), (status, body) in zip(drawn, together, strict=True):
        assert status == (422 if kind == "bad" else 200)
        if kind in ("infer", "nested"):
            outputs = {tensor["name"]: tensor["data"] for tensor in json.loads(body)["outputs"]}
            ((_, plain),) = bodies(api, call(api, "/act", {"observations": rows, "seed": seed}))
            assert outputs["actions"] == json.loads(plain)["actions"]
            assert outputs["state_values"] == json.loads(plain)["state_values"]


def test_a_request_that_fails_leaves_those_beside_it_alone(api: Api) -> None:
    good = [
        call(api, "/act", {"observation": ROW, "seed": 3}),
        call(api, "/act", {"observations": [[1, 2, 3, 4], [9, 9, 9, 9]], "seed": 4}),
        call(
            api,
            PREDICT,
            {
                "signature_name": "act",
                "inputs": {"observations": [ROW], "uniforms": [0.5], "deterministic": [True]},
            },
        ),
        call(api, INFER, infer([ROW], 5)),
    ]
    bad = [
        (call(api, "/act", {"observations": []}), 422),
        (call(api, "/act", b"not JSON"), 400),
        (call(api, "/act", {"observations": [[1, 2, 3, 1e39]]}), 422),
        (call(api, "/models/nobody/act", {"observation": ROW}), 404),
        (call(api, INFER, infer([[1, 2, 3, 4]], -1)), 400),
        (call(api, PREDICT, {"instances": [[1, 2, 3]]}), 400),
    ]
    alone = bodies(api, *good)
    assert [status for status, _ in alone] == [200] * len(good)
    for failing, status in bad:
        first, *answers, last = bodies(api, failing, *good, failing)
        assert answers == alone
        assert first == last
        assert first[0] == status


def test_a_request_without_rows_is_refused_beside_others_of_its_kind(api: Api) -> None:
    rows: list[list[list[float]]] = [[ROW], [], [ROW] * 2]
    calls = [call(api, "/act", {"observations": one, "seed": 1}) for one in rows]
    assert [status for status, _ in bodies(api, *calls)] == [200, 422, 200]


def test_requests_are_counted_once_each_though_one_of_them_fails(repository: Repository) -> None:
    metrics = Metrics()
    api = create_api(Settings(), repository, metrics, Keys([]))
    sizes = [1, 1, 3, 20]
    calls = [call(api, "/act", {"observations": [ROW] * size}) for size in sizes]
    api.decisions.answer([*calls, call(api, "/act", {"observations": [[1, 2, 3]]})])
    api.decisions.answer(calls)
    text = metrics.text()[0].decode()
    labels = 'model="cartpole"'
    assert f"policy_batch_rows_sum{{{labels}}} {2.0 * sum(sizes)}" in text
    for bound, count in [("1.0", 4.0), ("4.0", 6.0), ("16.0", 6.0), ("64.0", 8.0), ("+Inf", 8.0)]:
        assert f'policy_batch_rows_bucket{{le="{bound}",{labels}}} {count}' in text
    assert 'policy_http_requests_total{route="/act",status="200"} 8.0' in text
    assert 'policy_http_requests_total{route="/act",status="422"} 1.0' in text
    assert 'policy_http_request_seconds_count{route="/act"} 9.0' in text


class Overflowing:
    """Computes logits and values as its rows say: column 0 and column 1."""

    name, version = "overflowing", 1
    ranges = Ranges(["a", "b"], np.full(2, -np.inf, np.float32), np.full(2, np.inf, np.float32))
    card = Card(
        environment="none",
        observations=Observations(["a", "b"], [0.0, 0.0], [1.0, 1.0]),
        actions=Actions(["x", "y"]),
        solved=True,
        evaluation=Evaluations(Evaluation(1.0), Evaluation(1.0)),
        checksums={},
    )

    def act(
        self, observations: FloatArray, uniforms: FloatArray, deterministic: Any
    ) -> PolicyOutputs:
        with np.errstate(over="ignore"):
            scaled = observations * np.float32(1e38)
        logits = np.stack([scaled[:, 0], np.zeros(len(scaled), np.float32)], axis=1)
        actions = np.where(deterministic | (uniforms < 0.5), 0, 1)
        return PolicyOutputs(logits, logits, actions, actions, uniforms, scaled[:, 1])


@pytest.mark.parametrize("column", [0, 1])
def test_an_overflow_of_a_logit_or_a_state_value_is_that_requests_error(column: int) -> None:
    wrong = [[1.0, 1.0], [1.0, 1.0]]
    wrong[1][column] = 10.0  # times 1e38 is beyond float32
    rows: list[list[list[float]]] = [[[1.0, 1.0]], wrong, [[2.0, 2.0]]]
    requests = [
        DecisionRequest(Overflowing(), list(one), SamplingSpec(seed=7))  # type: ignore[arg-type]  # no Policy
        for one in rows
    ]
    decisions = decide_many(requests, max_rows=5)
    first, error, last = decisions.results
    assert isinstance(error, InvalidRequestError)
    assert error.detail.startswith("observations[1]: too large")
    assert isinstance(first, ActResult)
    assert isinstance(last, ActResult)
    assert last.outputs.state_values.tolist() == [np.float32(2e38)]
    # What is counted is what was decided.
    assert decisions.rows == [1, 1]
    assert decisions.outputs is not None
    assert len(decisions.outputs.actions) == 2
