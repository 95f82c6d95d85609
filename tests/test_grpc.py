"""gRPC gives what HTTP gives: the same numbers, actions, errors, ids and records."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import urllib3
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
)
from tritonclient.grpc import service_pb2

from serving.policy.sampling import uniforms_of
from serving.rpc.call import address, metadata_of
from tests.conftest import Trained, run, wait_until
from tests.rpc import (
    INFER,
    ROWS,
    Array,
    RpcService,
    arrays_of,
    infer,
    infer_input,
    predict_request,
    prediction_stub,
    running_rpc,
    typed_request,
)
from tests.test_protocols import Outputs, by_act, observations


@pytest.fixture(scope="module")
def rpc(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcService]:
    folder = tmp_path_factory.mktemp("rpc")
    record = ("--decision-log", str(folder / "record"), "--log-requests", "all")
    with running_rpc(trained.models, folder / "log", *record, "--max-rows", "2000") as running:
        yield running


@pytest.fixture(scope="module")
def triton(rpc: RpcService) -> Iterator[Any]:
    with tritonclient.grpc.InferenceServerClient(rpc.address) as client:
        yield client


@pytest.fixture(scope="module")
def channel(rpc: RpcService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(rpc.address) as made:
        yield made


@pytest.fixture(scope="module")
def pool(rpc: RpcService) -> Iterator[urllib3.HTTPConnectionPool]:
    with urllib3.connection_from_url(rpc.http.url) as connections:
        yield connections


def by_raw(triton: Any, rows: Array, seed: int, deterministic: bool) -> Outputs:
    parameters = {"seed": seed, "deterministic": deterministic}
    result = triton.infer("cartpole", [infer_input(rows)], parameters=parameters)
    assert result.get_response().parameters["seed"].int64_param == seed
    return {tensor.name: result.as_numpy(tensor.name) for tensor in result.get_response().outputs}


def by_contents(channel: grpc.Channel, rows: Array, seed: int, deterministic: bool) -> Outputs:
    answer = infer(channel, typed_request(rows, seed=seed, deterministic=deterministic))
    assert not answer.raw_output_contents
    fields = {"FP32": ("fp32_contents", np.float32), "INT64": ("int64_contents", np.int64)}
    outputs = {}
    for tensor in answer.outputs:
        field, dtype = fields[tensor.datatype]
        values: Array = np.array(getattr(tensor.contents, field), dtype)
        outputs[tensor.name] = values.reshape(tensor.shape)
    return outputs


def by_predict(channel: grpc.Channel, rows: Array, seed: int, deterministic: bool) -> Outputs:
    request = predict_request(
        "act",
        observations=rows,
        uniforms=uniforms_of([seed], [len(rows)]),
        deterministic=np.full(len(rows), deterministic),
    )
    return arrays_of(prediction_stub(channel).Predict(request))


@settings(max_examples=60, deadline=None)
@given(observations, st.integers(0, 2**53 - 1), st.booleans())
def test_grpc_gives_the_numbers_and_the_actions_of_http(
    pool: Any, triton: Any, channel: grpc.Channel, rows: Any, seed: int, deterministic: bool
) -> None:
    array = np.array(rows, np.float32)
    expected = by_act(pool, array, seed, deterministic)
    for outputs in (
        by_raw(triton, array, seed, deterministic),
        by_contents(channel, array, seed, deterministic),
        by_predict(channel, array, seed, deterministic),
    ):
        assert outputs.keys() == expected.keys() | {"greedy_actions"}
        for name, want in expected.items():
            np.testing.assert_array_equal(outputs[name], want, strict=True, err_msg=name)


def test_a_tensor_proto_is_read_as_tensorflow_does(channel: grpc.Channel) -> None:
    rows = np.zeros((3, 4), np.float32)
    # Sampled, the first would be action 0 and the second 1, as the third is.
    uniforms: Array = np.array([0, 1 - 2**-24, 1 - 2**-24], np.float32)
    inputs = {"observations": rows, "uniforms": uniforms, "deterministic": [True, True, False]}
    whole, short = (predict_request("act", **inputs) for _ in range(2))
    # The last number repeats to the end of the shape; any byte but 0 is true.
    short.inputs["uniforms"].ClearField("tensor_content")
    short.inputs["uniforms"].float_val[:] = uniforms[:2]
    short.inputs["deterministic"].ClearField("bool_val")
    short.inputs["deterministic"].tensor_content = bytes([2, 2, 0])
    expected, found = (
        arrays_of(prediction_stub(channel).Predict(request)) for request in (whole, short)
    )
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    # Without values, all are 0.
    short.inputs["observations"].ClearField("tensor_content")
    zeros = arrays_of(prediction_stub(channel).Predict(short))
    for name, array in expected.items():
        np.testing.assert_array_equal(zeros[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [("ipv4:192.0.2.7:50051", "192.0.2.7"), ("ipv6:%5B2001:db8::7%5D:50051", "2001:db8::7")],
)
def test_the_address_of_a_client_is_read_from_the_name_of_its_peer(
    peer: str, expected: str
) -> None:
    assert address(peer) == expected


def test_many_calls_at_once_give_what_each_gives_alone(channel: grpc.Channel, triton: Any) -> None:
    method = channel.unary_unary(
        INFER,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelInferResponse.FromString,
    )
    requests = [typed_request(ROWS + step / 100, seed=step) for step in range(60)]
    # One of them is wrong, and one so large that a thread takes it.
    requests[7].inputs[0].shape[1] = 3
    requests[20] = typed_request(np.resize(ROWS, (2000, 4)), seed=20)
    futures = [method.future(request, timeout=60) for request in requests]
    for step, future in enumerate(futures):
        if step == 7:
            assert future.exception().code() is grpc.StatusCode.INVALID_ARGUMENT
            continue
        rows = np.resize(ROWS, (2000, 4)) if step == 20 else ROWS + step / 100
        expected = by_raw(triton, rows.astype(np.float32), step, deterministic=False)
        actions = future.result().outputs[2]
        assert actions.name == "actions"
        assert list(actions.contents.int64_contents) == expected["actions"].tolist()


def test_outputs_can_be_chosen(triton: Any, channel: grpc.Channel) -> None:
    wanted = [tritonclient.grpc.InferRequestedOutput("state_values")]
    answer = triton.infer("cartpole", [infer_input(ROWS)], outputs=wanted).get_response()
    assert [tensor.name for tensor in answer.outputs] == ["state_values"]
    request = predict_request(observations=ROWS)
    request.output_filter.append("actions")
    assert arrays_of(prediction_stub(channel).Predict(request)).keys() == {"actions"}


def test_the_models_are_described_as_over_http(triton: Any, pool: Any) -> None:
    over_http = pool.request("GET", "/v2/models/cartpole").json()
    described = triton.get_model_metadata("cartpole", as_json=True)
    assert [tensor["name"] for tensor in described["outputs"]] == [
        tensor["name"] for tensor in over_http["outputs"]
    ]
    assert described["inputs"] == [
        {"name": "observations", "datatype": "FP32", "shape": ["-1", "4"]}
    ]
    assert triton.get_server_metadata().name == "actor-critic"
    assert triton.get_model_config("cartpole").config.input[0].data_type == 11  # TYPE_FP32
    (statistics,) = triton.get_inference_statistics("cartpole").model_stats
    assert statistics.inference_count > 0
    (entry,) = triton.get_model_repository_index().models
    assert (entry.name, entry.version, entry.state) == ("cartpole", "1", "READY")
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("cartpole")


def test_tensorflow_serving_describes_its_models(channel: grpc.Channel) -> None:
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "cartpole"
    answer = prediction_stub(channel).GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert answer.metadata["signature_def"].Unpack(signatures)
    assert answer.model_spec.version.value == 1
    assert set(signatures.signature_def["act"].inputs) == {
        *("observations", "uniforms", "deterministic")
    }
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name = "cartpole"
    (one,) = (
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status).model_version_status
    )
    assert (one.version, one.State.Name(one.state)) == (1, "AVAILABLE")
    status.model_spec.name = "none"
    with pytest.raises(grpc.RpcError) as error:
        model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert error.value.details() == "Could not find any versions of model none"


def test_ids_come_back_and_reach_the_log_and_the_record(
    rpc: RpcService, channel: grpc.Channel
) -> None:
    method = channel.unary_unary(INFER)
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    metadata = (
        *(("x-request-id", "mine"), ("x-episode-id", "walk.7"), ("traceparent", trace)),
        ("x-forwarded-for", "10.0.0.1"),
    )
    _, call = method.with_call(typed_request(ROWS).SerializeToString(), metadata=metadata)
    trailing = dict(call.trailing_metadata())
    assert trailing["x-request-id"] == "mine"
    assert trailing["traceparent"].split("-")[1] == "a" * 32
    (line,) = [
        json.loads(line) for line in rpc.http.log.read_text().splitlines() if '"mine"' in line
    ]
    assert (line["path"], line["status"], line["remote"]) == (INFER, 200, "127.0.0.1")
    record = rpc.http.log.parent / "record"

    def recorded() -> list[Any]:
        lines = [line for file in record.iterdir() for line in file.read_text().splitlines()]
        return [json.loads(line) for line in lines if '"mine"' in line]

    wait_until(lambda: bool(recorded()))
    assert [(one["episode"], len(one["actions"])) for one in recorded()] == [("walk.7", 2)]
    with pytest.raises(grpc.RpcError, match="X-Episode-ID: expected 1 to 128") as error:
        infer(channel, typed_request(ROWS), metadata=(("x-episode-id", "a b"),))
    assert "x-request-id" in dict(error.value.trailing_metadata())


def test_values_of_one_name_are_joined_as_over_http(channel: grpc.Channel) -> None:
    given = (("x-forwarded-for", "1.2.3.4"), ("x-bin", b"1"), ("x-forwarded-for", "10.0.0.1"))
    context = SimpleNamespace(invocation_metadata=lambda: given)
    assert metadata_of(context) == {"x-forwarded-for": "1.2.3.4, 10.0.0.1"}
    twice = (("x-episode-id", "one"), ("x-episode-id", "two"))
    with pytest.raises(grpc.RpcError, match="X-Episode-ID: expected 1 to 128"):
        infer(channel, typed_request(ROWS), metadata=twice)


def test_calls_are_counted_like_requests_of_http(pool: Any, channel: grpc.Channel) -> None:
    def count(status: int) -> float:
        start = f'policy_http_requests_total{{route="{INFER}",status="{status}"}} '
        text = pool.request("GET", "/metrics").data.decode()
        return sum(
            float(line[len(start) :]) for line in text.splitlines() if line.startswith(start)
        )

    before = count(200), count(400), count(404), count(422)
    infer(channel, typed_request(ROWS))
    for request, code in [
        (service_pb2.ModelInferRequest(model_name="none"), grpc.StatusCode.NOT_FOUND),
        (service_pb2.ModelInferRequest(), grpc.StatusCode.NOT_FOUND),  # names no model
        (typed_request(ROWS * np.nan), grpc.StatusCode.INVALID_ARGUMENT),
    ]:
        with pytest.raises(grpc.RpcError) as error:
            infer(channel, request)
        assert error.value.code() is code
    after = count(200), count(400), count(404), count(422)
    assert np.subtract(after, before).tolist() == [1, 1, 2, 0]


def test_health_and_reflection_are_the_standard_ones(channel: grpc.Channel) -> None:
    services = ProtoReflectionDescriptorDatabase(channel).get_services()
    ours = {
        *("inference.GRPCInferenceService", "tensorflow.serving.PredictionService"),
        "tensorflow.serving.ModelService",
    }
    assert set(services) == ours | {
        *("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
    }
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    for service in services:
        assert pool.FindServiceByName(service).full_name == service
    health = health_pb2_grpc.HealthStub(channel)
    listed = health.List(health_pb2.HealthListRequest()).statuses
    assert {name: one.status for name, one in listed.items()} == dict.fromkeys(
        ("", *ours), health_pb2.HealthCheckResponse.SERVING
    )
    for service in ("", *ours):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as error:
        health.Check(health_pb2.HealthCheckRequest(service="none"))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_port_in_use_ends_the_start_even_where_another_service_shares_it(
    rpc: RpcService, trained: Trained
) -> None:
    port = rpc.address.rpartition(":")[2]
    finished = run(
        *("serving", "run", "--models", str(trained.models)), *("--port", "0", "--grpc-port", port)
    )
    assert finished.returncode == 2
    assert finished.stderr == (
        f"Error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )
