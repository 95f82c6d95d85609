"""The manifests: by Kubernetes' schemas, and as pods of podman with a real source of versions.

podman has no preStop and no probes that it could run here, and no API server: of a Deployment this
runs the pod, with its init container, its limits and its end.
"""

import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.manifests import Manifest, pod_template
from serving.client import PolicyClient, ServiceError
from tests.artefacts import publish
from tests.cluster.pods import Played, Podman, played
from tests.conftest import ROOT, Trained, wait_until
from tests.containers import docker, require_engine
from tests.faults.load import Load
from tests.manifests import BASE, LOCAL, require_kubectl
from tests.pull.sources import Rclone
from tests.tools import skip_outside_ci

pytestmark = pytest.mark.cluster

VALIDATE = ROOT / ".cluster" / "bin" / "kubernetes-validate"
OBSERVATIONS = [[0.01, -0.02, 0.03, 0.04]]


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Podman:
    require_kubectl()
    return Podman(tmp_path_factory.mktemp("podman"))


@pytest.fixture(scope="module")
def pod_images(podman: Podman, images: str) -> Iterator[str]:
    """The images, moved from Docker to podman: `localhost/<this>-serve:local` and so on."""
    require_engine()
    names = [f"localhost/{images}-{one}:local" for one in ("serve", "pull", "train")]
    for name in names:
        docker("tag", name.removeprefix("localhost/").removesuffix(":local"), name)
    try:
        with subprocess.Popen(["docker", "save", *names], stdout=subprocess.PIPE) as saving:
            loaded = subprocess.run(
                ["podman", "load", "--quiet"], stdin=saving.stdout, capture_output=True, timeout=300
            )
        assert (saving.returncode, loaded.returncode) == (0, 0), loaded.stderr
        yield images
    finally:
        docker("rmi", *names)
        podman.run("rmi", "--force", *names)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Rclone]:
    """An empty folder, shown over WebDAV on the loopback interface."""
    source = Rclone(tmp_path / "source")
    source.start("webdav")
    (source.models / "cartpole").mkdir()
    yield source
    source.stop()


def url(source: Rclone) -> str:
    return f"http://10.0.2.2:{source.port}/bucket/some/models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for an overlay, which is also the name of the pod."""
    folder = tmp_path / f"test{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    return folder


def damage(model_dir: Path) -> None:
    """Change one byte of the weights."""
    weights = model_dir / "variables" / "variables.data-00000-of-00001"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)


@pytest.fixture
def running(
    podman: Podman, pod_images: str, source: Rclone, folder: Path, trained: Trained
) -> Iterator[Played]:
    """A pod of the service, ready; its source has a good version 1 and a damaged version 2."""
    publish(trained.model_dir, source.models / "cartpole" / "1")
    publish(trained.model_dir, source.models / "cartpole" / "2", damage)
    with played(podman, folder, pod_images, url(source)) as pod:
        assert pod.result.returncode == 0, pod.result.stderr
        with PolicyClient(f"http://127.0.0.1:{pod.port}") as client:
            client.wait_until_ready(60)
        yield pod


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("manifests", [BASE, LOCAL], ids=["base", "local"])
def test_manifests_keep_the_schemas_of_kubernetes(manifests: Path, version: str) -> None:
    require_kubectl()
    if not VALIDATE.exists():
        skip_outside_ci("kubernetes-validate is missing: make .cluster/installed")

    def check(made: str) -> subprocess.CompletedProcess[str]:
        command = [str(VALIDATE), "--strict", "--kubernetes-version", version, "-"]
        return subprocess.run(command, input=made, capture_output=True, text=True, timeout=60)

    command = ["kubectl", "kustomize", str(manifests)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    good = check(made)
    # Without a schema it only warns.
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.count(" passed for resource ") == made.count("\nkind: ") == 9
    wrong = check(made.replace("maxUnavailable: 0", "maxUnavalable: 0"))
    assert wrong.returncode == 1
    assert "'maxUnavalable' was unexpected" in wrong.stdout


def test_the_init_container_pulls_and_verifies_and_the_service_answers(
    podman: Podman, running: Played
) -> None:
    with PolicyClient(f"http://127.0.0.1:{running.port}") as client:
        answer = client.act(OBSERVATIONS, deterministic=True)
    assert (len(answer.actions), answer.model.version) == (1, 1)
    serve = running.container("serve")
    # The damaged version of the source is not there, and keeps the pinned one from nothing.
    assert podman("exec", serve, "ls", "models/cartpole") == "1"
    # Two workers, for two processors.
    assert podman("logs", serve).count("Booting worker") == 2


def test_the_service_is_unprivileged_and_can_only_read_the_models(
    podman: Podman, running: Played
) -> None:
    serve = running.container("serve")
    status = podman("exec", serve, "cat", "/proc/1/status").splitlines()
    fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert fields["Uid"].split() == ["10001"] * 4
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    for path in ("/app/models/x", "/app/x"):
        written = podman.run("exec", serve, "touch", path)
        assert "Read-only file system" in written.stderr
    podman("exec", serve, "touch", "/tmp/x")
    limits = podman.inspect(serve)["HostConfig"]
    assert (limits["Memory"], limits["NanoCpus"]) == (2 * 2**30, 2 * 10**9)


def test_sigterm_loses_no_request(podman: Podman, running: Played) -> None:
    serve = running.container("serve")
    # From the pod's own network: what forwards the port accepts what nobody listens for.
    process = str(podman.inspect(serve)["State"]["Pid"])
    with Load("http://127.0.0.1:8000", 4, within=("nsenter", "--target", process, "--net")) as load:
        time.sleep(1)
        stopped = time.monotonic()
        podman("stop", "--time=50", serve)
        assert time.monotonic() - stopped < 40
    assert podman.inspect(serve)["State"]["ExitCode"] == 0
    assert load.outcome.sent == load.outcome.statuses[200] > 100
    assert (load.outcome.lost_ports, load.outcome.unused) == ([], 0)
    assert "Traceback" not in podman("logs", serve)


def test_a_damaged_version_keeps_the_pod_from_becoming_ready(
    podman: Podman, pod_images: str, source: Rclone, folder: Path, trained: Trained
) -> None:
    publish(trained.model_dir, source.models / "cartpole" / "1", damage)
    with played(podman, folder, pod_images, url(source)) as pod:
        assert pod.result.returncode != 0
        assert "init container" in pod.result.stderr
        assert "cartpole version 1 is not pulled: " in podman("logs", pod.container("pull"))
        assert podman.inspect(pod.container("serve"))["State"]["StartedAt"].startswith("0001-")
        with pytest.raises(ServiceError, match="does not answer"):
            PolicyClient(f"http://127.0.0.1:{pod.port}").act(OBSERVATIONS)


def test_a_source_that_is_away_ends_the_init_container_with_the_reason(
    podman: Podman, pod_images: str, folder: Path
) -> None:
    with played(podman, folder, pod_images, "http://127.0.0.1:9/models") as pod:
        assert pod.result.returncode != 0
        logged = podman("logs", pod.container("pull"))
        assert "cannot pull from http://127.0.0.1:9/models into models: " in logged


def training_pod(manifests: list[Manifest]) -> list[Manifest]:
    """The pod that the training Job makes, with its volume, for a short run."""
    (job,) = (one for one in manifests if one["kind"] == "CronJob")
    template = pod_template(job)
    assert template is not None
    (container,) = template["spec"]["containers"]
    container["args"] += ["--max-env-steps", "1000", "--allow-unsolved"]
    metadata = {"name": job["metadata"]["name"]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    return [one for one in manifests if one["kind"] == "PersistentVolumeClaim"] + [pod]


def test_the_pod_of_the_training_job_exports_to_the_volume(
    podman: Podman, pod_images: str, folder: Path
) -> None:
    with played(podman, folder, pod_images, choose=training_pod) as pod:
        assert pod.result.returncode == 0, pod.result.stderr
        train = pod.container("train")
        wait_until(lambda: podman.inspect(train)["State"]["Status"] == "exited", 120)
        logged = podman("logs", train)
        assert podman.inspect(train)["State"]["ExitCode"] == 0, logged
        assert "exported models/cartpole/" in logged
