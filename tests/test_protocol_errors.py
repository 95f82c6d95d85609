"""Hostile requests in other protocols: none makes the service fail, all are told in one shape."""

import gzip
import json
import re
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
import urllib3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.api.tensors import DATATYPES, flatten, numbers_from_bytes, numbers_from_json
from serving.errors import InvalidRequestError
from tests.conformance.conftest import expect_error
from tests.test_act import ROW
from tests.test_hostile_bodies import PIECES, json_values
from tests.test_protocols import HEADER, INFER, JSON, PREDICT, pool, post

__all__ = ["pool"]  # a fixture

TENSOR = {"name": "observations", "shape": [1, 4], "datatype": "FP32", "data": ROW}
ACT: dict[str, list[Any]] = {"observations": [ROW], "uniforms": [0.5], "deterministic": [True]}
GOOD = {
    PREDICT: [
        {"instances": [ROW, ROW]},
        {"inputs": {"observations": [ROW]}},
        {"signature_name": "act", "inputs": ACT},
        {"signature_name": "act", "instances": [{name: ACT[name][0] for name in ACT}]},
    ],
    INFER: [
        {"inputs": [TENSOR], "id": "a", "parameters": {"seed": 7, "deterministic": False}},
        {"inputs": [TENSOR | {"data": [ROW]}], "outputs": [{"name": "actions"}]},
    ],
}


def check(response: urllib3.BaseHTTPResponse) -> int:
    if response.status != 200:
        expect_error(response, 400)
    return response.status


tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("observations") | json_values,
        "shape": st.just([1, 4]) | st.lists(st.integers(), max_size=3) | json_values,
        "datatype": st.sampled_from([*DATATYPES, "BOOL"]) | json_values,
        "data": st.just(ROW) | json_values,
        "parameters": json_values,
    },
)
infer_bodies = json_values | st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(tensors, max_size=2) | json_values,
        "outputs": st.just([{"name": "actions"}]) | json_values,
        "id": json_values,
        "parameters": json_values,
    },
)
named = st.fixed_dictionaries(
    {},
    optional={
        "observations": st.just(ROW) | st.just([ROW]) | json_values,
        "uniforms": st.just(0.5) | st.just([0.5]) | json_values,
        "deterministic": st.just(True) | st.just([True]) | json_values,
        "more": json_values,
    },
)
predict_bodies = json_values | st.fixed_dictionaries(
    {},
    optional={
        "signature_name": st.sampled_from(["act", "serving_default", ""]) | json_values,
        "instances": st.lists(named | st.just(ROW) | json_values, max_size=3) | json_values,
        "inputs": named | st.just([ROW]) | json_values,
    },
)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(predict_bodies)
def test_no_value_makes_predict_fail(pool: urllib3.HTTPConnectionPool, body: Any) -> None:
    check(post(pool, PREDICT, body))


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(infer_bodies)
def test_no_value_makes_infer_fail(pool: urllib3.HTTPConnectionPool, body: Any) -> None:
    check(post(pool, INFER, body))


@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_no_change_of_a_good_body_makes_the_service_fail(
    pool: urllib3.HTTPConnectionPool, path: str
) -> None:
    rng = np.random.default_rng(0)
    answers: Counter[int] = Counter()
    bodies = [json.dumps(body).encode() for body in GOOD[path]]
    for body in bodies:
        assert check(post(pool, path, body)) == 200
    for _ in range(2_000):
        body = bodies[rng.integers(len(bodies))]
        for _ in range(rng.integers(1, 4)):
            start, stop = sorted(rng.integers(0, len(body) + 1, 2).tolist())
            piece = PIECES[rng.integers(len(PIECES))]
            body = [
                body[:start] + piece + body[start:],
                body[:start] + piece + body[min(stop, start + 8) :],
                body[:stop] + body[start:],
            ][rng.integers(3)]
        answers[check(post(pool, path, body))] += 1
    assert answers[400] > 1_000


sizes = st.integers(-3, 200) | st.sampled_from([2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**30])
lengths = st.text("0123456789-+._eExXaN", max_size=25)


@st.composite
def binary_requests(draw: st.DrawFn) -> tuple[bytes, str, bool]:
    """A body, the header about it, and whether the two are sound.

    It begins sound, and then up to two parts are drawn anew.
    """
    wrong = draw(
        st.sets(st.sampled_from(["datatype", "shape", "size", "raw", "length"]), max_size=2)
    )
    datatype, rows = draw(st.sampled_from(list(DATATYPES))), draw(st.integers(1, 5))
    item = DATATYPES[datatype].itemsize
    shape, size = [rows, 4], rows * 4 * item
    raw = bytes(size)
    if "datatype" in wrong:
        datatype = draw(st.sampled_from([*DATATYPES, "BOOL", "BYTES", "FP128"]))
        item = DATATYPES[datatype].itemsize if datatype in DATATYPES else 1
    if "shape" in wrong:
        shape = draw(st.lists(sizes, max_size=3) | st.tuples(sizes, st.just(4)).map(list))
    if "size" in wrong:
        size = draw(sizes)
    if "raw" in wrong:
        raw = bytes(draw(st.integers(0, 200)))
    tensor = {"name": "observations", "shape": shape, "datatype": datatype}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}).encode()
    length = str(len(head))
    if "length" in wrong:
        length = draw(st.integers(-300, 300).map(lambda shift: str(len(head) + shift)) | lengths)
    cuts_there = re.fullmatch("[0-9]{1,18}", length) is not None and int(length) == len(head)
    is_sound = (
        cuts_there
        and datatype in DATATYPES
        and len(shape) == 2
        and shape[1] == 4
        and shape[0] >= 1
        and shape[0] * 4 * item == size == len(raw)
    )
    return head + raw, length, is_sound


@settings(max_examples=1_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(binary_requests())
def test_binary_tensors_are_taken_only_as_their_header_says(
    pool: urllib3.HTTPConnectionPool, asked: tuple[bytes, str, bool]
) -> None:
    body, length, is_sound = asked
    response = post(pool, INFER, body, {HEADER: length})
    assert check(response) == (200 if is_sound else 400), response.data


def test_a_tensor_that_is_not_there_costs_no_memory() -> None:
    huge = [2**62, 4]
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequestError, match="0 bytes, but FP64 of shape"):
            numbers_from_bytes(memoryview(b""), "FP64", huge)
        with pytest.raises(InvalidRequestError, match="data has the shape"):
            numbers_from_json([0.0], "FP64", huge)
        deep: list[Any] = []
        for _ in range(900):
            deep = [deep]
        with pytest.raises(InvalidRequestError, match="nested too deeply"):
            flatten(deep, "float")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_binary_tensors_are_not_copied() -> None:
    raw = np.zeros((1_000, 4), "<f4").tobytes()
    array = numbers_from_bytes(memoryview(raw), "FP32", [1_000, 4])
    assert np.shares_memory(array, np.frombuffer(raw, np.uint8))


@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_errors_of_http_itself_have_the_protocols_shape(
    pool: urllib3.HTTPConnectionPool, path: str
) -> None:
    expect_error(post(pool, path, b" " * (16 * 1024 * 1024 + 1)), 413)
    bomb = gzip.compress(b" " * (16 * 1024 * 1024 + 1))
    expect_error(post(pool, path, bomb, JSON | {"Content-Encoding": "gzip"}), 413)
    expect_error(post(pool, path, b"{}", JSON | {"Content-Encoding": "br"}), 415)
    expect_error(post(pool, path, b"{}", JSON | {"Content-Encoding": "gzip"}), 400, "not gzip")


def test_a_method_that_is_not_allowed_is_told_which_is(pool: urllib3.HTTPConnectionPool) -> None:
    for method, path, allowed in [
        ("GET", INFER, {"POST", "OPTIONS"}),
        ("DELETE", "/v2/models/cartpole", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/v2", {"GET", "HEAD", "OPTIONS"}),
    ]:
        response = pool.urlopen(method, path, retries=False)
        expect_error(response, 405)
        assert set(response.headers["Allow"].split(", ")) == allowed
        options = pool.urlopen("OPTIONS", path, retries=False)
        assert options.status == 200
        assert set(options.headers["Allow"].split(", ")) == allowed


def test_other_routes_keep_their_own_shape(pool: urllib3.HTTPConnectionPool) -> None:
    for path in ("/v1", "/v3", "/v22/models"):
        response = pool.urlopen("GET", path, retries=False)
        assert response.status == 404
        assert response.headers["Content-Type"] == "application/problem+json"
