"""The Kubernetes manifests: security, and numbers that agree with those of the service."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from gunicorn.config import Config

from scripts.manifests import pod_template
from serving.server.connection import LINGER_SECONDS
from serving.settings import SOURCE, Settings
from tests.conftest import ROOT
from tests.manifests import BASE, LOCAL, config, manifests, of_base

FOLDERS = [str(BASE), str(LOCAL)]
MIB = 2**20
UNITS = {"Mi": MIB, "Gi": 2**30}


def amount(quantity: str) -> int:
    """Bytes."""
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def pod() -> dict[str, Any]:
    """The pod of the service."""
    spec: dict[str, Any] = of_base("Deployment")["template"]["spec"]
    return spec


def serve() -> dict[str, Any]:
    (container,) = pod()["containers"]
    found: dict[str, Any] = container
    return found


def test_the_base_has_what_a_service_and_its_training_need() -> None:
    kinds = sorted(kind for kind, _ in manifests(str(BASE)))
    assert kinds == [
        *("ConfigMap", "CronJob", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy"),
        *("NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget", "Service"),
    ]
    assert manifests(str(BASE)).keys() - manifests(str(LOCAL)).keys() == {
        ("ConfigMap", next(name for kind, name in manifests(str(BASE)) if kind == "ConfigMap"))
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=["base", "local"])
def test_every_pod_keeps_the_restricted_pod_security_standard(folder: str) -> None:
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/
    pods = [t for t in map(pod_template, manifests(folder).values()) if t is not None]
    assert len(pods) == 2
    for template in pods:
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "runAsUser" not in spec["securityContext"]  # the images have one, OpenShift another
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert spec["automountServiceAccountToken"] is False
        for volume in spec["volumes"]:
            assert set(volume) - {"name"} <= {"emptyDir", "persistentVolumeClaim", "secret"}
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"]
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_only_the_container_that_pulls_can_write_the_models() -> None:
    mounts = {
        container["name"]: mount
        for container in [*pod()["initContainers"], *pod()["containers"]]
        for mount in container["volumeMounts"]
        if mount["name"] == "models"
    }
    path = f"/app/{Settings().models}"
    assert mounts == {
        "pull": {"name": "models", "mountPath": path},
        "serve": {"name": "models", "mountPath": path, "readOnly": True},
    }
    assert "WORKDIR /app\n" in (ROOT / "Dockerfile.serve").read_text()


def test_a_pod_ends_after_its_endpoints_are_removed_and_its_requests_are_answered() -> None:
    sleep = serve()["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = Config().settings["graceful_timeout"].get()
    assert sleep >= 5
    assert drain > LINGER_SECONDS
    assert pod()["terminationGracePeriodSeconds"] >= sleep + drain + 5


def test_workers_follow_the_limit_of_processors_and_memory_is_as_measured() -> None:
    variables = {one["name"]: one.get("valueFrom") for one in serve()["env"]}
    field = {"containerName": "serve", "resource": "limits.cpu"}
    assert variables["SERVING_WORKERS"] == {"resourceFieldRef": field}
    requests, limits = serve()["resources"]["requests"], serve()["resources"]["limits"]
    workers = int(limits["cpu"])
    # The autoscaler counts from the request: with less, it would be above 100 % at full load.
    assert requests["cpu"] == limits["cpu"]
    operations = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    master, most, large = (
        int(re.search(pattern, operations)[1])  # type: ignore[index]  # without a match the test fails
        for pattern in (
            r"the master has (\d+) MB",
            r"most that a worker takes is about (\d+) MB",
            r"a worker had 200 to (\d+) MB",
        )
    )
    assert amount(requests["memory"]) >= (master + workers * large) * 1e6
    assert amount(limits["memory"]) >= (master + workers * most) * 1e6


def test_ports_and_probes_are_the_services() -> None:
    (port,) = serve()["ports"]
    assert port == {"name": "http", "containerPort": Settings().port}
    assert f"SERVING_PORT={Settings().port}" in (ROOT / "Dockerfile.serve").read_text()
    assert of_base("Service")["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    asked = {kind: serve()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness")}
    assert set(map(str, asked.values())) == {str({"path": "/health/live", "port": "http"})}
    assert serve()["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}


def test_settings_have_the_names_that_the_service_reads() -> None:
    known = {f"SERVING_{setting.name.upper()}" for setting in fields(Settings)}
    known.add("SERVING_SOURCE")
    for folder in (BASE, LOCAL):
        assert set(config(folder)) <= known
        assert re.fullmatch(SOURCE.pattern, config(folder)["SERVING_SOURCE"])
        assert int(config(folder)["SERVING_PIN"]) > 0
    assert {one["name"] for one in serve()["env"]} <= known


def test_keys_are_required_except_for_a_trial_on_one_machine() -> None:
    (keys,) = (one for one in serve()["env"] if one["name"] == "SERVING_API_KEYS_FILE")
    (mount,) = (one for one in serve()["volumeMounts"] if one["name"] == "keys")
    (volume,) = (one for one in pod()["volumes"] if one["name"] == "keys")
    assert keys["value"] == f"{mount['mountPath']}/keys"
    assert volume["secret"] == {"secretName": "actor-critic-keys"}  # neither optional nor renamed
    local = manifests(str(LOCAL))["Deployment", "actor-critic-serve"]["spec"]["template"]["spec"]
    (container,) = local["containers"]
    assert (
        "keys" not in str((container["env"], container["volumeMounts"], local["volumes"])).lower()
    )
    assert [port["hostIP"] for port in container["ports"]] == ["127.0.0.1"]


def test_every_selector_finds_the_pods_of_the_service() -> None:
    labels = of_base("Deployment")["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "serve"
    selectors = [
        of_base("Deployment")["selector"]["matchLabels"],
        of_base("Service")["selector"],
        of_base("PodDisruptionBudget")["selector"]["matchLabels"],
        of_base("NetworkPolicy")["podSelector"]["matchLabels"],
        *(one["labelSelector"]["matchLabels"] for one in pod()["topologySpreadConstraints"]),
    ]
    assert selectors == [labels] * 5
    target = of_base("HorizontalPodAutoscaler")["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "actor-critic-serve")
    assert "replicas" not in of_base("Deployment")
    assert of_base("Deployment")["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_network_is_closed_but_for_requests_names_and_the_source() -> None:
    policy = of_base("NetworkPolicy")
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == [{"ports": [{"port": "http"}]}]
    assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {53, 443}
    closed = of_base("NetworkPolicy", "actor-critic-train")
    assert closed["policyTypes"] == ["Ingress", "Egress"]
    assert not closed.keys() & {"ingress", "egress"}
    train = of_base("CronJob", "actor-critic-train")["jobTemplate"]["spec"]["template"]
    assert train["metadata"]["labels"] == closed["podSelector"]["matchLabels"]


MANIFESTS = sorted([*LOCAL.glob("*.yaml"), *BASE.glob("[!k]*.yaml")])


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_manifest_says_what_was_not_run(path: Path) -> None:
    comments = " ".join(line.strip("# ") for line in path.read_text().splitlines() if "#" in line)
    assert re.search(r"Not run here[:,].*[Tt]he schema is checked\.", comments)
