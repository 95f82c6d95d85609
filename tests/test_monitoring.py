"""monitoring/ and the compose file, checked by Debian's Prometheus and by compose itself."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3

from serving.client import PolicyClient
from serving.registry.selection import Selection, write_selection
from tests.artefacts import edit_card, publish, small_window
from tests.conftest import ROOT, Trained, running_service, wait_until
from tests.test_act import ROW
from tests.tools import require_program, skip_outside_ci

MONITORING = ROOT / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboards" / "policy.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]] + [
    annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]
]


@pytest.fixture(scope="module", autouse=True)
def _prometheus() -> None:
    for program in ("prometheus", "promtool"):
        require_program(program, "prometheus")


def promtool(*arguments: str, **options: Any) -> str:
    finished: subprocess.CompletedProcess[str] = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, **options
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


def test_configuration_and_rules_are_valid() -> None:
    assert "14 rules found" in promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "--lint-fatal", "rules.yml")


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yml")
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "rules.yml").read_text())
    tested = (MONITORING / "rules_test.yml").read_text().split("- name: ")
    for alert in alerts:
        # Once for the healthy service, and once for one with faults.
        assert sum(f"alertname: {alert}" in part for part in tested) == 2, alert


@contextmanager
def prometheus(config: str, folder: Path) -> Iterator[str]:
    """A real Prometheus that scrapes every second; its URL."""
    shutil.copy(MONITORING / "rules.yml", folder)
    (folder / "prometheus.yml").write_text(config)
    promtool("check", "config", str(folder / "prometheus.yml"))
    log = folder / "log"
    with (
        log.open("w") as log_file,
        subprocess.Popen(
            [
                *("prometheus", f"--config.file={folder}/prometheus.yml"),
                *(f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=log_file,
        ) as process,
    ):
        try:
            listening = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)\n')
            wait_until(lambda: listening.search(log.read_text()) is not None)
            (port,) = listening.findall(log.read_text())
            url = f"http://127.0.0.1:{port}"
            wait_until(
                lambda: urllib3.request("GET", f"{url}/-/ready", retries=False).status == 200
            )
            yield url
        finally:
            process.terminate()


def query_api(url: str, path: str, **fields: str) -> Any:
    answer = urllib3.request("GET", f"{url}/api/v1/{path}", fields=fields).json()
    assert answer["status"] == "success", answer
    return answer["data"]


def healths(url: str) -> list[str]:
    """The health of every rule: whether it could be evaluated."""
    (group,) = query_api(url, "rules")["groups"]
    return [rule["health"] for rule in group["rules"]]


@pytest.mark.long
def test_prometheus_scrapes_the_real_service_and_the_dashboard_shows_it(
    trained: Trained, tmp_path: Path
) -> None:
    key = "prometheus-has-a-key-too"
    (tmp_path / "keys").write_text(key)
    options = ("--api-keys-file", str(tmp_path / "keys"))
    models = shutil.copytree(trained.models, tmp_path / "models")
    edit_card(models / "cartpole" / "1", small_window)
    publish(models / "cartpole" / "1", models / "cartpole" / "2")
    write_selection(models / "cartpole", Selection(1, shadow=2))
    with running_service(models, tmp_path / "service.log", *options) as service:
        with PolicyClient(service.url, api_key=key) as client:
            client.wait_until_ready(60)
            config = (MONITORING / "prometheus.yml").read_text()
            for there, here in [
                ("serve:8000", urlsplit(service.url).netloc),
                ("scrape_interval: 15s", "scrape_interval: 1s"),
                ("evaluation_interval: 15s", "evaluation_interval: 1s"),
                # As docs/operations.md says.
                (
                    "job_name: policy\n",
                    f"job_name: policy\n    authorization: {{credentials_file: {tmp_path}/keys}}\n",
                ),
            ]:
                assert config.count(there) == 1
                config = config.replace(there, here)
            with prometheus(config, tmp_path) as url:
                wait_until(lambda: bool(query_api(url, "query", query="up == 1")["result"]))

                def rates_are_known() -> bool:
                    client.act([ROW, [9.0, 0.0, 0.0, 0.0]])
                    for _ in range(20):
                        client.act([ROW] * 64)
                    query = "rate(policy_actions_total[1m]) > 0 and on () policy_observation_psi"
                    return bool(query_api(url, "query", query=query)["result"])

                wait_until(rates_are_known)
                for expression in EXPRESSIONS:
                    query = expression.replace("$__rate_interval", "1m").replace("$model", ".*")
                    data = query_api(url, "query", query=query)
                    if "changes(" not in expression:  # no version was swapped
                        assert data["result"], expression
                wait_until(lambda: healths(url) == ["ok"] * 14)
                alerts = query_api(url, "alerts")["alerts"]
                assert [alert for alert in alerts if alert["state"] == "firing"] == []
        scraped = urllib3.request(
            "GET", f"{service.url}/metrics", headers={"Authorization": f"Bearer {key}"}
        )
        promtool("check", "metrics", input=scraped.data.decode())


def test_rules_and_dashboard_use_only_documented_metrics() -> None:
    document = (ROOT / "docs" / "operations.md").read_text()
    documented = set(re.findall(r"^\| `(policy_\w+)` \|", document, re.MULTILINE))
    used: dict[str, set[str]] = {}
    for place, text in [
        ("dashboard", " ".join(EXPRESSIONS)),
        ("rules", (MONITORING / "rules.yml").read_text()),
    ]:
        names = re.findall(r"\bpolicy_\w+", text)
        used[place] = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
        assert used[place] <= documented
    assert used["dashboard"] == documented


def test_the_dashboard_is_provisioned_and_its_panels_do_not_overlap() -> None:
    provisioning = MONITORING / "grafana" / "provisioning"
    source = (provisioning / "datasources" / "prometheus.yml").read_text()
    assert "uid: prometheus\n" in source
    assert (
        "path: /etc/grafana/dashboards\n"
        in (provisioning / "dashboards" / "policy.yml").read_text()
    )
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "prometheus"}
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def composes() -> list[list[str]]:
    """The compose commands of this machine; `config` needs no engine."""
    found = []
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]) is not None:
            tried = subprocess.run([*command, "version"], capture_output=True)
            if tried.returncode == 0:
                found.append(command)
    return found


def test_the_compose_profile_adds_monitoring_and_changes_nothing_else() -> None:
    if not composes():
        skip_outside_ci("no docker compose here")
    for command in composes():
        shown = subprocess.run(
            [*command, "--profile", "monitoring", "config"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert shown.returncode == 0, shown.stderr
        for image in ("image: grafana/grafana:", "image: prom/prometheus:v"):
            assert image in shown.stdout
    without = subprocess.run(
        [*composes()[0], "config", "--services"], cwd=ROOT, capture_output=True, text=True
    )
    if composes()[0] == ["docker", "compose"]:  # the old one lists all
        assert sorted(without.stdout.split()) == ["demo", "serve", "train"]


def test_what_compose_mounts_exists() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    mounts = re.findall(r'"(\./[\w./]+):([\w./]+):ro"', text)
    assert len(mounts) == 5
    for source, _ in mounts:
        assert (ROOT / source).is_dir()
    # Nothing is published to other machines.
    ports = re.findall(r'ports: \["([^"]+)"\]', text)
    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)
