"""gRPC of a whole service: keys, connections, deadlines, the end, canaries, and off by default."""

import json
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import urllib3
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.utils import InferenceServerException

from serving.client import PolicyClient
from tests.artefacts import publish
from tests.conftest import ROOT, Service, Trained, pause, wait_until
from tests.faults.test_stuck_requests import SENTINEL, get_stuck_at_sentinel
from tests.rpc import (
    INFER,
    OWN_CONNECTION,
    RpcService,
    infer,
    infer_input,
    running_rpc,
    typed_request,
)
from tests.test_act import ROW

pytestmark = pytest.mark.long

ROWS = np.array([ROW], np.float32)
KEYS = (
    "an-operators-key-of-32-characters ops operate\na-robots-key-of-32-characters--- robot decide\n"
)
SERVING, NOT_SERVING = (
    health_pb2.HealthCheckResponse.SERVING,
    health_pb2.HealthCheckResponse.NOT_SERVING,
)


def client(rpc: RpcService) -> Any:
    """With a connection of its own."""
    return tritonclient.grpc.InferenceServerClient(rpc.address, channel_args=OWN_CONNECTION)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def workers(service: Service) -> set[int]:
    children = Path(f"/proc/{service.process.pid}/task/{service.process.pid}/children")
    return set(map(int, children.read_text().split()))


def has_grpc(process: int) -> bool:
    return "cygrpc" in Path(f"/proc/{process}/maps").read_text()


def counted(rpc: RpcService, metric: str) -> float:
    lines = urllib3.request("GET", f"{rpc.http.url}/metrics").data.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


def test_without_the_option_no_worker_loads_grpc(service: Service) -> None:
    assert not any(map(has_grpc, {service.process.pid, *workers(service)}))
    assert "gRPC" not in service.log.read_text()


def test_the_master_never_loads_grpc_and_every_worker_gets_connections(
    trained: Trained, tmp_path: Path
) -> None:
    with running_rpc(trained.models, tmp_path / "log", "--log-requests", "all") as rpc:
        assert not has_grpc(rpc.http.process.pid)
        assert all(map(has_grpc, workers(rpc.http)))
        clients = [client(rpc) for _ in range(40)]
        for one in clients:
            one.infer("cartpole", [infer_input(ROWS)])
            one.infer("cartpole", [infer_input(ROWS)])
        lines = [json.loads(line) for line in rpc.http.log.read_text().splitlines()]
        of_worker = [line["process"] for line in lines if "ModelInfer" in line.get("path", "")]
        assert len(of_worker) == 80
        # A connection stays with its worker, and the kernel draws that: none of 40 has one in 1e12.
        assert of_worker[::2] == of_worker[1::2]
        assert len(set(of_worker)) == 2


def test_keys_are_those_of_http(trained: Trained, tmp_path: Path) -> None:
    operator, robot = (line.split()[0] for line in KEYS.splitlines())
    (tmp_path / "keys").write_text(KEYS)
    models = shutil.copytree(trained.models, tmp_path / "models")
    log = tmp_path / "log"
    with running_rpc(models, log, "--api-keys-file", str(tmp_path / "keys")) as rpc:
        triton = client(rpc)

        def refused(*arguments: Any, method: str = "infer", **options: Any) -> str:
            with pytest.raises(InferenceServerException) as error:
                getattr(triton, method)(*arguments, **options)
            return f"{error.value.status()}: {error.value.message()}"

        asked = ("cartpole", [infer_input(ROWS)])
        assert refused(*asked).startswith("StatusCode.UNAUTHENTICATED: an API key is needed")
        assert refused(*asked, headers=bearer("x" * 32)).startswith("StatusCode.UNAUTHENTICATED")
        assert "UNAUTHENTICATED" in refused(method="get_server_metadata")
        triton.infer(*asked, headers=bearer(robot))
        assert refused("cartpole", method="unload_model", headers=bearer(robot)) == (
            "StatusCode.PERMISSION_DENIED: the API key robot may not change what is served"
        )
        # Health is public, and reflection is not.
        assert triton.is_server_live()
        assert triton.is_server_ready()
        with grpc.insecure_channel(rpc.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            assert health.Check(health_pb2.HealthCheckRequest()).status == SERVING
            with pytest.raises(grpc.RpcError) as error:
                ProtoReflectionDescriptorDatabase(channel).get_services()
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
            triton.unload_model("cartpole", headers=bearer(operator))

            # Readiness and health follow, in every worker.
            def status() -> int:
                return int(health.Check(health_pb2.HealthCheckRequest()).status)

            wait_until(lambda: status() == NOT_SERVING)
            wait_until(lambda: "UNAVAILABLE" in refused(*asked, headers=bearer(robot)))
            triton.load_model("cartpole", headers=bearer(operator))
            wait_until(lambda: status() == SERVING)
        parameters = {"config": "{}"}
        assert "INVALID_ARGUMENT" in refused(
            "cartpole", method="load_model", headers=bearer(operator), **parameters
        )


def test_a_call_whose_deadline_has_passed_is_not_decided(trained: Trained, tmp_path: Path) -> None:
    with running_rpc(trained.models, tmp_path / "log", workers=1) as rpc:
        triton = client(rpc)
        triton.infer("cartpole", [infer_input(ROWS)])
        (worker,) = (one for one in workers(rpc.http) if has_grpc(one))
        pause(worker)
        try:
            with pytest.raises(InferenceServerException) as error:
                triton.infer("cartpole", [infer_input(ROWS)], client_timeout=0.5)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert error.value.status() == "StatusCode.DEADLINE_EXCEEDED"
        triton.infer("cartpole", [infer_input(ROWS)])
        assert counted(rpc, "policy_actions_total") == 2


@pytest.mark.parametrize(
    "method", [INFER, "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"]
)
def test_calls_whose_message_does_not_come_leave_room_for_others(
    trained: Trained, tmp_path: Path, method: str
) -> None:
    done = threading.Event()

    def nothing() -> Iterator[bytes]:
        done.wait()
        yield from ()

    limit = ("--client-timeout", "1")
    with (
        running_rpc(trained.models, tmp_path / "log", *limit, workers=1) as rpc,
        grpc.insecure_channel(rpc.address, OWN_CONNECTION) as channel,
    ):
        silent = [channel.stream_unary(method).future(nothing()) for _ in range(40)]
        time.sleep(0.5)  # they have all threads
        infer(channel, typed_request(ROWS))
        assert {call.code().name for call in silent} == {"CANCELLED"}
        done.set()
        without = channel.stream_unary(method)
        with pytest.raises(grpc.RpcError, match="the call has no message"):
            without(iter(()))


def test_at_the_end_health_says_so_and_calls_in_flight_are_answered(
    trained: Trained, tmp_path: Path
) -> None:
    with running_rpc(trained.models, tmp_path / "log") as rpc:
        triton = client(rpc)
        triton.infer("cartpole", [infer_input(ROWS)])
        with grpc.insecure_channel(rpc.address) as channel:
            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watched).status == SERVING
            rpc.http.process.send_signal(signal.SIGTERM)
            assert next(watched).status == NOT_SERVING
            # It still answers for those who do not know that yet.
            triton.infer("cartpole", [infer_input(ROWS)])
            # A stream that never ends by itself keeps nothing from ending.
            assert rpc.http.process.wait(20) == 0
            assert watched.code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
        assert "uncaught" not in rpc.http.log.read_text()
        with pytest.raises(InferenceServerException) as error:
            triton.infer("cartpole", [infer_input(ROWS)])
        assert error.value.status() == "StatusCode.UNAVAILABLE"


def test_a_reload_loses_no_call_of_clients_that_repeat_as_documented(
    trained: Trained, tmp_path: Path
) -> None:
    documented = (ROOT / "docs" / "protocols.md").read_text()
    (config,) = re.findall(r"```json\n(\{\"methodConfig.*?)```", documented, re.DOTALL)
    options = [*OWN_CONNECTION, ("grpc.service_config", config)]
    is_over = threading.Event()

    def ask(address: str) -> int:
        calls = 0
        with grpc.insecure_channel(address, options) as channel:
            while not is_over.is_set():
                infer(channel, typed_request(ROWS))
                calls += 1
        return calls

    with running_rpc(trained.models, tmp_path / "log") as rpc, ThreadPoolExecutor(8) as clients:
        before = {one for one in workers(rpc.http) if has_grpc(one)}
        asking = [clients.submit(ask, rpc.address) for _ in range(8)]
        try:
            rpc.http.process.send_signal(signal.SIGHUP)
            wait_until(lambda: not before & workers(rpc.http))
        finally:
            is_over.set()
        assert all(one.result() > 0 for one in asking)


def test_an_episode_gets_the_version_of_its_canary(trained: Trained, tmp_path: Path) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    shutil.copytree(models / "cartpole" / "1", models / "cartpole" / "2")
    selection = {"serve": 1, "canaries": [{"version": 2, "share": 0.5}], "shadow": 2}
    (models / "cartpole" / "serve.json").write_text(json.dumps(selection))
    with running_rpc(models, tmp_path / "log", workers=1) as rpc:
        policy = PolicyClient(rpc.http.url)
        policy.wait_until_ready(30)
        wait_until(lambda: len(re.findall("version 2", rpc.http.log.read_text())) > 0)
        triton = client(rpc)
        of_grpc, of_http = [], []
        for episode in map(str, range(20)):
            headers = {"x-episode-id": episode}
            answer = triton.infer("cartpole", [infer_input(ROWS)], headers=headers)
            of_grpc.append(answer.get_response().model_version)
            of_http.append(str(policy.act([ROW], episode=episode).model.version))
        assert of_grpc == of_http
        assert set(of_grpc) == {"1", "2"}
        # The shadow decides about what only gRPC brings, too.
        before = counted(rpc, "policy_shadow_decisions_total")
        triton.infer("cartpole", [infer_input(np.resize(ROWS, (500, 4)))])
        wait_until(lambda: counted(rpc, "policy_shadow_decisions_total") > before)


def test_a_stuck_call_ends_and_its_worker_is_replaced(trained: Trained, tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "cartpole").mkdir(parents=True)
    publish(trained.model_dir, models / "cartpole" / "1", get_stuck_at_sentinel)
    log = tmp_path / "log"
    with running_rpc(models, log, "--request-timeout", "2", workers=1) as rpc:
        triton, other = client(rpc), client(rpc)
        for one in (triton, other):
            one.infer("cartpole", [infer_input(ROWS)])
        (before,) = (one for one in workers(rpc.http) if has_grpc(one))
        stuck = infer_input(np.array([[SENTINEL, 0, 0, 0]], np.float32))
        ended: list[Any] = []
        triton.async_infer("cartpole", [stuck], lambda result, error: ended.append((result, error)))
        time.sleep(0.3)
        # It waits for the stuck one.
        with pytest.raises(InferenceServerException) as error:
            other.infer("cartpole", [infer_input(ROWS)])
        # Which, by how long it has waited.
        assert (error.value.status(), error.value.message()) in (
            ("StatusCode.DEADLINE_EXCEEDED", "the policy took too long"),
            ("StatusCode.UNAVAILABLE", "this worker is stuck"),
        )
        wait_until(lambda: bool(ended))
        assert ended[0][1].status() == "StatusCode.UNAVAILABLE"

        def is_answered() -> bool:
            try:
                other.infer("cartpole", [infer_input(ROWS)])
            except InferenceServerException:
                return False
            return True

        wait_until(is_answered)
        assert before not in workers(rpc.http)
