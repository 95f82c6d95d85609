"""Versions that come to several machines from one source, under load."""

import time
from pathlib import Path

import pytest

from serving.client import PolicyClient
from tests.artefacts import publish
from tests.cluster.envoy.conftest import Balanced, balancing
from tests.cluster.envoy.load import Load
from tests.cluster.envoy.machines import Replica
from tests.conftest import Trained, run, wait_until
from tests.faults.conftest import Tell
from tests.pull.sources import SOURCE, Rclone, end, running_pull

pytestmark = pytest.mark.cluster


def served(replica: Replica) -> int | None:
    """The version that a service serves."""
    return PolicyClient(f"http://{replica.address}").models().models[0].version


def pull(replica: Replica) -> None:
    """Pull once to the machine of a service, and wait until that is served."""
    finished = run("serving", "pull", "--source", SOURCE, "--models", str(replica.models))
    assert (finished.returncode, finished.stdout) == (0, "pulled cartpole version 2\n")
    wait_until(lambda: served(replica) == 2)


def test_a_rolling_change_of_version_under_load_loses_nothing(
    balanced: Balanced,
    trained: Trained,
    bucket: Rclone,
    tell: Tell,
) -> None:
    envoy, replicas = balanced
    publish(trained.model_dir, bucket.models / "cartpole" / "2")
    with (
        Load(envoy.url, envoy.certificate, 8, "plain") as plain,
        Load(envoy.url, envoy.certificate, 8, "policy") as policy,
    ):
        begin = time.monotonic()
        for replica in replicas:
            pull(replica)
        seconds = time.monotonic() - begin
        retried = envoy.count("upstream_rq_retry")
        unhealthy = envoy.count("membership_total") - envoy.count("membership_healthy")
    tell(f"three machines changed from version 1 to 2 in {seconds:.1f} s, {retried} retries")
    for kind, outcome in (("plain clients", plain.outcome), ("PolicyClient", policy.outcome)):
        tell(f"{kind}: {outcome}; answers by version {outcome.versions}")
        assert outcome.failures == []
        assert set(outcome.versions) == {1, 2}
    assert (retried, unhealthy) == (0, 0)


def test_while_the_source_is_away_all_serve_what_they_have_and_a_new_machine_waits(
    trained: Trained,
    tmp_path: Path,
    bucket: Rclone,
    tell: Tell,
) -> None:
    publish(trained.model_dir, bucket.models / "cartpole" / "2")
    empty = tmp_path / "empty"
    empty.mkdir()
    with balancing(trained.models, tmp_path, 2, "--poll-seconds", "0.2") as (envoy, replicas):
        old, new = replicas
        new.terminate()
        new.models = empty
        bucket.stop()
        with (
            Load(envoy.url, envoy.certificate, 8, "plain") as load,
            running_pull(empty, tmp_path / "pull-new", "--every", "0.5") as pulling,
        ):
            new.start()
            wait_until(lambda: "cannot pull from" in (tmp_path / "pull-new").read_text())
            new.wait_until_live()
            time.sleep(1.5)
            assert envoy.usable() == {old.address}
            begin = time.monotonic()
            bucket.start()
            envoy.wait_until_usable(replicas)
            seconds = time.monotonic() - begin
            wait_until(lambda: new.actions() > 0)
            assert end(pulling) == (0, "")
    tell(f"a machine without versions was sent requests {seconds:.1f} s after the source was back")
    tell(str(load.outcome))
    assert load.outcome.failures == []
    assert set(load.outcome.versions) == {1, 2}
