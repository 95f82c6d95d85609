"""Where keys are read from, how they are exchanged, and what their lines allow."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import urllib3

from serving.client import PolicyClient
from tests.conftest import ENVIRONMENT, Service, Trained, run, running_service, wait_until
from tests.test_keys import IN_FILE, IN_VARIABLE, WRONG, act
from tests.test_serving_cli import children


def test_keys_are_exchanged_by_sighup_and_a_wrong_file_changes_nothing(
    trained: Trained, tmp_path: Path
) -> None:
    keys, log = tmp_path / "keys", tmp_path / "log"
    keys.write_text(IN_FILE[0])

    def reload(content: str, told: str) -> None:
        before = children(service.process.pid)
        count = log.read_text().count(told)
        keys.write_text(content)
        os.kill(service.process.pid, signal.SIGHUP)
        wait_until(lambda: log.read_text().count(told) > count)
        wait_until(lambda: not set(before) & set(children(service.process.pid)))

    options = ("--api-keys-file", str(keys), "--workers", "1")
    with running_service(trained.models, log, *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        assert [act(service, f"Bearer {key}").status for key in IN_FILE] == [200, 401]
        reload(IN_FILE[1], "1 API keys")
        assert [act(service, f"Bearer {key}").status for key in IN_FILE] == [401, 200]
        reload("short", "the API keys stay as they were")
        assert [act(service, f"Bearer {key}").status for key in IN_FILE] == [401, 200]
        assert service.process.poll() is None


@pytest.mark.parametrize(
    ("content", "variable", "told"),
    [
        ("", None, "has no key"),
        (" \n\t\n", None, "has no key"),
        (f"{IN_FILE[0]}\nshort-secret", None, "API key 2 is not at least 16 visible ASCII"),
        ("sixteen-but-wïth-umlaut", None, "API key 1 is not"),
        ("sixteen but with spaces", None, "API key 1 is not"),
        (IN_FILE[0], "short-secret", "API key 1 is not"),
        (None, f"{IN_FILE[0]},", "API key 2 is not"),
        (None, " ", "API key 1 is not"),
        (b"\xff" * 20, None, "keys: "),
    ],
)
def test_what_is_no_key_ends_the_start_in_one_line_that_does_not_show_it(
    content: str | bytes | None, variable: str | None, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    options = []
    if content is not None:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        options = ["--api-keys-file", str(file)]
    with pytest.MonkeyPatch.context() as patch:
        if variable is not None:
            patch.setitem(ENVIRONMENT, "SERVING_API_KEYS", variable)
        finished = run("serving", "run", "--models", "tests", "--port", "0", *options)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    assert told in finished.stderr
    for secret in ("secret", "umlaut", "spaces", IN_FILE[0]):
        assert secret not in finished.stderr


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        options = ("--models", "tests", "--port", "0", "--api-keys-file", str(path))
        finished = run("serving", "run", *options, timeout=60)  # as a service would not end
        assert finished.returncode == 2
        assert finished.stderr.count("\n") == 1
        assert str(path) in finished.stderr


def test_without_keys_nobody_is_asked_for_one(service: Service) -> None:
    assert act(service, None).status == 200
    assert act(service, f"Bearer {WRONG}").status == 200


def repository(service: Service, key: str, verb: str) -> urllib3.BaseHTTPResponse:
    return urllib3.request(
        "POST",
        f"{service.url}/v2/repository/models/cartpole/{verb}",
        headers={"Authorization": f"Bearer {key}"},
        retries=False,
    )


def test_a_key_may_do_what_its_line_says_and_what_it_does_is_logged_by_its_name(
    trained: Trained, tmp_path: Path
) -> None:
    models = shutil.copytree(trained.models, tmp_path / "models")
    decides, operates, plain = IN_FILE[0], IN_FILE[1], IN_VARIABLE[0]
    keys = tmp_path / "keys"
    keys.write_text(f"{decides} robot-7 decide\n{operates}\talice  operate\n{plain}\n")
    log, options = tmp_path / "log", ("--api-keys-file", str(keys), "--workers", "1")
    with running_service(models, log, *options) as service:
        PolicyClient(service.url).wait_until_ready(60)
        for key in (decides, operates, plain):
            assert act(service, f"Bearer {key}").status == 200
        for verb in ("load", "unload"):
            refused = repository(service, decides, verb)
            assert refused.status == 403
            assert refused.json() == {"error": "the API key robot-7 may not change what is served"}
            assert refused.headers["WWW-Authenticate"] == (
                'Bearer error="insufficient_scope", scope="operate"'
            )
        assert act(service, f"Bearer {decides}").status == 200
        assert repository(service, operates, "unload").status == 200
        assert repository(service, plain, "load").status == 200
    written = log.read_text()
    assert "cartpole serves nothing from now on, by API key alice" in written
    # `printf %s variable-key-cccccccc | sha256sum` begins so.
    assert "cartpole serves newest from now on, by API key 5c4db127" in written
    assert not any(key in written for key in (decides, operates, plain))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f"{WRONG} alice", "is not followed by a name and 'decide' or 'operate'"),
        (f"{WRONG} alice rule", "is not followed by a name and 'decide' or 'operate'"),
        (f"{WRONG} al,ice decide", "is not followed by a name and 'decide' or 'operate'"),
        (f"{WRONG} alice decide operate", "is not followed by a name and 'decide' or 'operate'"),
        (f"{WRONG}\n{WRONG} alice decide", "an API key has two names or rights"),
    ],
)
def test_a_line_that_is_no_key_is_told_at_the_start(
    line: str, reason: str, trained: Trained, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(line)
    options = ("--models", str(trained.models), "--api-keys-file", str(tmp_path / "keys"))
    finished = run("serving", "run", *options, timeout=60)  # as a service would not end
    assert finished.returncode == 2
    assert reason in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert WRONG not in finished.stderr
