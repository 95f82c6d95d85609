"""Errors over gRPC: each protocol's code, in the words that HTTP has."""

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

from tests.conftest import Trained, wait_until
from tests.rpc import (
    ROWS,
    RpcService,
    infer,
    infer_input,
    predict_request,
    prediction_stub,
    running_rpc,
    typed_request,
)


@pytest.fixture(scope="module")
def rpc(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcService]:
    log = tmp_path_factory.mktemp("rpc") / "log"
    with running_rpc(trained.models, log, "--max-rows", "2000", workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def channel(rpc: RpcService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(rpc.address) as made:
        yield made


def wrong_model() -> Any:
    request = typed_request(ROWS)
    request.model_name = "none"
    return request


def wrong_contents() -> Any:
    request = typed_request(ROWS)
    request.inputs[0].contents.int_contents.append(1)
    return request


def wrong_seed() -> Any:
    return typed_request(ROWS, seed=-1)


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (wrong_model(), "NOT_FOUND", "no model is called 'none'"),
        (typed_request(ROWS[:, :3]), "INVALID_ARGUMENT", r"the shape is \[2, 3\], expected \[rows"),
        (wrong_contents(), "INVALID_ARGUMENT", "FP32 is in fp32_contents only"),
        (wrong_seed(), "INVALID_ARGUMENT", "parameters.seed: expected `int` >= 0"),
        (typed_request(ROWS * np.inf), "INVALID_ARGUMENT", "inf is not finite"),
        (typed_request(np.resize(ROWS, (2001, 4))), "INVALID_ARGUMENT", "2001 rows, expected 1 to"),
        (service_pb2.ModelInferRequest(model_name="cartpole"), "INVALID_ARGUMENT", "exactly one"),
    ],
)
def test_a_wrong_inference_has_its_code_and_the_words_of_http(
    channel: grpc.Channel, request_: Any, code: str, words: str
) -> None:
    with pytest.raises(grpc.RpcError, match=words) as error:
        infer(channel, request_)
    assert error.value.code().name == code


def test_a_wrong_prediction_has_tensorflow_servings_words(channel: grpc.Channel) -> None:
    def refused(request: Any) -> tuple[str, str]:
        with pytest.raises(grpc.RpcError) as error:
            prediction_stub(channel).Predict(request)
        return error.value.code().name, error.value.details()

    request = predict_request(observations=ROWS)
    request.model_spec.name = "none"
    code, words = refused(request)
    assert code == "NOT_FOUND"
    assert words.startswith("Servable not found for request: Latest(none)")
    assert refused(predict_request("none", observations=ROWS)) == (
        "FAILED_PRECONDITION",
        'Serving signature key "none" not found.',
    )
    assert refused(predict_request("act", observations=ROWS)) == (
        "INVALID_ARGUMENT",
        "input size does not match signature: 1!=3 len({observations}) != "
        "len({deterministic,observations,uniforms}). Sent extra: {}. "
        "Missing but required: {deterministic,uniforms}.",
    )
    request = predict_request(observations=ROWS)
    request.output_filter.append("none")
    assert refused(request)[1].startswith("output tensor alias not found in signature: none")
    request = predict_request(observations=ROWS)
    request.model_spec.version_label = "none"
    assert refused(request)[1].startswith("Unrecognized servable version label: none")
    # The last number repeats to the end of a shape, which must not take all memory.
    request = predict_request(observations=ROWS[:1, :1])
    for dimension, size in zip(
        request.inputs["observations"].tensor_shape.dim, (2**31, 4), strict=True
    ):
        dimension.size = size
    assert refused(request)[0] == "INVALID_ARGUMENT"
    # Nor may a short message be a large request.
    request = predict_request(observations=np.zeros((1025, 4), np.float32))
    request.inputs["observations"].ClearField("tensor_content")
    request.inputs["observations"].float_val[:] = [0.5] * 3
    assert refused(request) == (
        "INVALID_ARGUMENT",
        "observations: the last value may be repeated 4096 times at most",
    )
    request = predict_request(
        "act", observations=ROWS[:1], uniforms=np.array([0.5], np.float32), deterministic=[True]
    )
    for _ in range(64):  # more dimensions than NumPy has
        request.inputs["uniforms"].tensor_shape.dim.add(size=1)
    assert refused(request) == ("INVALID_ARGUMENT", "tensor parsing error: uniforms")
    request = predict_request(observations=ROWS.astype(np.float64))
    assert refused(request) == (
        "INVALID_ARGUMENT",
        "observations: the data type is 2, expected DT_FLOAT",
    )


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_beyond_the_limit_is_refused_compressed_or_not(
    channel: grpc.Channel, compression: grpc.Compression
) -> None:
    plain = infer(channel, typed_request(ROWS, seed=7))
    assert infer(channel, typed_request(ROWS, seed=7), compression=compression) == plain
    request = typed_request(ROWS)
    request.raw_input_contents.append(bytes(17 * 2**20))
    with pytest.raises(grpc.RpcError) as error:
        infer(channel, request, compression=compression)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", ["é" * 4000, "x" * 20_000, "%" * 3000])
def test_a_long_error_has_its_code_and_is_cut(channel: grpc.Channel, name: str) -> None:
    request = typed_request(ROWS)
    request.outputs.add(name=name)
    with pytest.raises(grpc.RpcError) as error:
        infer(channel, request)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    details = error.value.details()
    assert details.endswith(f"{name[:600]}...")
    # As gRPC sends it: three characters for a percent sign, six for an é.
    sent = sum({"é": 6, "%": 3}.get(character, 1) for character in details[:-3])
    assert 4090 < sent <= 4096


def test_idle_streams_of_reflection_stop_no_other_call(rpc: RpcService) -> None:
    done = threading.Event()

    def asks() -> Iterator[Any]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        done.wait()

    with grpc.insecure_channel(rpc.address) as channel:
        describe = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        streams = [describe(asks()) for _ in range(40)]
        infer(channel, typed_request(ROWS))
        done.set()
        ended = Counter(map(outcome, streams))
        assert ended == {"OK": 4, "RESOURCE_EXHAUSTED": 36}
        # Those that have ended make room.
        wait_until(lambda: outcome(describe(asks())) == "OK")


def outcome(stream: Any) -> str:
    """The code with which a stream ends."""
    with contextlib.suppress(grpc.RpcError):
        list(stream)
    return str(stream.code().name)


def test_an_exception_of_tritonclient_has_the_code(rpc: RpcService) -> None:
    with (
        tritonclient.grpc.InferenceServerClient(rpc.address) as client,
        pytest.raises(InferenceServerException) as error,
    ):
        client.infer("none", [infer_input(ROWS)])
    assert error.value.status() == "StatusCode.NOT_FOUND"
