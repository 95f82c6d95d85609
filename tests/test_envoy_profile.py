"""Compose's profile `envoy`, as compose itself reads it; tests/cluster/envoy runs what is in it."""

import json
import re
import subprocess
from typing import Any

from serving.api.body import INLINE_BYTES
from serving.server.worker import KEEP_ALIVE_SECONDS
from serving.settings import Settings
from tests.conftest import ENVIRONMENT, ROOT
from tests.test_monitoring import composes
from tests.tools import skip_outside_ci


def services(**variables: str) -> dict[str, Any]:
    if ["docker", "compose"] not in composes():
        skip_outside_ci("no docker compose here")
    shown = subprocess.run(
        ["docker", "compose", "--profile", "*", "config", "--format", "json"],
        cwd=ROOT,
        env=ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(shown.stdout)["services"]
    return found


def test_replicas_are_the_service_without_a_published_port() -> None:
    found = services(SERVING_REPLICAS="5", SERVING_API_KEYS="0123456789abcdef")
    replica, serve = found["replica"], found["serve"]
    assert replica["deploy"]["replicas"] == 5
    assert replica["environment"]["SERVING_API_KEYS"] == "0123456789abcdef"
    # Everything else is the same; where their versions come from is for who starts them to say.
    assert set(serve) - set(replica) == {"ports", "depends_on"}
    assert set(replica) - set(serve) == {"deploy", "profiles"}
    for name in set(serve) & set(replica):
        assert serve[name] == replica[name], name


def test_there_are_three_replicas_unless_another_number_is_given() -> None:
    assert services()["replica"]["deploy"]["replicas"] == 3


def test_envoy_is_hardened_as_nginx_is() -> None:
    found = services()
    envoy, proxy = found["envoy"], found["proxy"]
    own = {"command", "depends_on", "image", "mem_limit", "profiles"}
    assert {k: v for k, v in envoy.items() if k not in own} == {
        k: v for k, v in proxy.items() if k not in own
    }
    assert envoy["image"] == "envoyproxy/envoy:v1.40.0"
    assert envoy["depends_on"].keys() == {"replica"}


def test_the_limits_of_envoy_go_with_those_of_the_service() -> None:
    text = (ROOT / "proxy" / "envoy.yaml").read_text()
    # A request that is sent on a connection which the service just closes is lost.
    *_, upstream = re.findall(r"idle_timeout: (\d+)s", text)
    assert int(upstream) < KEEP_ALIVE_SECONDS
    (answer,) = re.findall(r"^ +timeout: (\d+)s  # more than", text, re.MULTILINE)
    assert int(answer) > Settings().request_timeout
    buffers = re.findall(r"per_connection_buffer_limit_bytes: (\d+)", text)
    assert [int(size) for size in buffers] == [INLINE_BYTES] * 2
