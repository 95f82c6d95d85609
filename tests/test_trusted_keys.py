"""Trusted keys: which versions a service and the commands refuse where they are set."""

import contextlib
import io
import json
import select
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from serving.cli import commands
from serving.policy.artefact import ArtefactError
from serving.policy.signature import read_trusted_keys, require_signature
from tests.artefacts import SIGNATURE, edit, edit_card, publish
from tests.conftest import ENVIRONMENT, Trained, run, running_service, wait_until
from tests.signatures import (
    CHANGED,
    TAMPERING,
    Key,
    change,
    commands_with_keys,
    mistake,
    mistake_here,
    model_dir,
    replace_byte,
    sign_with_their_command,
    their_verdict,
    verify,
    write_key,
)
from tests.test_metrics_endpoint import Running
from training import signing

__all__ = ["model_dir"]  # a fixture


def refusal(model_dir: Path, trusted: Path) -> str:
    """Why `verify` refuses a version; in this process, where warnings are errors."""
    arguments = ["verify", str(model_dir), "--trusted-keys", str(trusted)]
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()) as printed:
        commands.main(arguments, standalone_mode=False)
    assert ended.value.code == 1
    assert printed.getvalue().startswith("refused: ")
    assert printed.getvalue().count("\n") == 1
    return printed.getvalue().removeprefix("refused: ").rstrip("\n")


@pytest.mark.parametrize(("tamper", "reason"), TAMPERING.values(), ids=TAMPERING)
def test_a_version_that_was_tampered_with_is_refused_with_the_reason(
    model_dir: Path, key: Key, tamper: Callable[[Path], object], reason: str
) -> None:
    tamper(model_dir)
    assert refusal(model_dir, key.trusted).startswith(reason)


def test_a_signature_by_another_key_is_refused_whatever_key_it_names(
    model_dir: Path, key: Key, other_key: Key
) -> None:
    bundle = json.loads((model_dir / SIGNATURE).read_text())
    name = bundle["verificationMaterial"]["publicKey"]["hint"]
    sign_with_their_command(model_dir, other_key)
    assert refusal(model_dir, key.trusted) == "it is signed by a key that is not trusted"
    edit(
        model_dir / SIGNATURE,
        lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint=name),
    )
    assert refusal(model_dir, key.trusted) == "model.sig was not made with the key that it names"


def test_a_version_with_the_signature_of_another_is_refused(model_dir: Path, key: Key) -> None:
    edit_card(model_dir, lambda card: card.update(created="another day"))
    other = shutil.copytree(model_dir, model_dir.parent / "2")
    run("training", "sign", str(other), "--key", str(key.private))
    assert verify(other, key.trusted).returncode == 0
    (model_dir / SIGNATURE).unlink()
    edit_card(model_dir, lambda card: card.update(created="a third day"))
    shutil.copy(other / SIGNATURE, model_dir / SIGNATURE)
    assert refusal(model_dir, key.trusted).startswith(CHANGED)


def test_a_signature_that_leaves_files_out_is_refused_and_loosens_no_later_check(
    trained: Trained, model_dir: Path, key: Key
) -> None:
    partly = shutil.copytree(trained.model_dir, model_dir.parent / "2")
    sign_with_their_command(partly, key, "--ignore-paths", str(partly / "assets.extra"))
    assert their_verdict(partly, key.public) == 0
    reason = refusal(partly, key.trusted)
    assert reason.startswith(CHANGED)
    assert "Extra files found" in reason
    assert "assets.extra/golden.json" in reason

    (model_dir / ".gitattributes").touch()
    assert their_verdict(model_dir, key.public) == 0
    keys = read_trusted_keys(key.trusted)
    with pytest.raises(ArtefactError, match=r"\.gitattributes"):
        require_signature(model_dir, keys)
    (model_dir / ".gitattributes").unlink()
    with pytest.raises(ArtefactError, match=CHANGED):
        require_signature(partly, keys)
    require_signature(model_dir, keys)
    replace_byte(model_dir / "assets.extra" / "golden.json")
    with pytest.raises(ArtefactError, match=CHANGED):
        require_signature(model_dir, keys)


@pytest.mark.long
def test_any_trusted_key_will_do_until_it_is_removed(
    model_dir: Path, key: Key, other_key: Key, tmp_path: Path
) -> None:
    trusted = tmp_path / "trusted"
    trusted.mkdir()
    (trusted / "README").write_text("only *.pem are keys")
    shutil.copy(other_key.public, trusted / "2026.pem")
    refused = verify(model_dir, trusted)
    assert refused.returncode == 1
    assert refused.stdout == "refused: it is signed by a key that is not trusted\n"
    shutil.copy(key.public, trusted / "2025.pem")
    assert verify(model_dir, trusted).returncode == 0
    # Signing again replaces the signature.
    finished = run("training", "sign", str(model_dir), "--key", str(other_key.private))
    assert finished.returncode == 0, finished.stderr
    (trusted / "2025.pem").unlink()
    assert verify(model_dir, trusted).returncode == 0
    assert their_verdict(model_dir, other_key.public) == 0
    assert their_verdict(model_dir, key.public) == 1
    assert [path.name for path in model_dir.parent.iterdir()] == ["1"]


def test_the_variable_sets_the_keys_too(
    model_dir: Path, other_key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "SERVING_TRUSTED_KEYS", str(other_key.trusted))
    finished = run("serving", "verify", str(model_dir))
    assert finished.returncode == 1
    assert finished.stdout == "refused: it is signed by a key that is not trusted\n"


@pytest.mark.long
def test_without_keys_a_signature_is_allowed_and_its_size_is_bounded(model_dir: Path) -> None:
    for content in (None, b"rubbish", b" " * 2**20):
        if content is not None:
            (model_dir / SIGNATURE).write_bytes(content)
        finished = run("serving", "verify", str(model_dir))
        assert finished.returncode == 0
        assert "signed  " not in finished.stdout
    (model_dir / SIGNATURE).write_bytes(b" " * (2**20 + 1))
    finished = run("serving", "verify", str(model_dir))
    assert finished.returncode == 1
    assert finished.stdout == "refused: model.sig has more than 1048576 bytes\n"


def test_a_file_that_is_no_public_key_is_one_line_and_exit_status_2(
    signed: Path, key: Key, tmp_path: Path
) -> None:
    wrong = {
        "rsa": write_key(tmp_path / "r", rsa.generate_private_key(65537, 2048)).public.read_bytes(),
        "curve": write_key(
            tmp_path / "c", ec.generate_private_key(ec.SECP256K1())
        ).public.read_bytes(),
        "private": key.private.read_bytes(),
        "empty": b"",
    }
    for name, content in wrong.items():
        folder = shutil.copytree(key.trusted, tmp_path / name)
        (folder / "wrong.pem").write_bytes(content)
        options = ["verify", str(signed), "--trusted-keys", str(folder)]
        line = mistake_here(commands, *options)
        assert line.startswith(f"{folder / 'wrong.pem'} is not a public key in PEM, of the curve")
    (folder / "wrong.pem").unlink()
    (folder / "wrong.pem").mkdir()
    line = mistake_here(commands, *options)
    assert line == f"{folder / 'wrong.pem'} cannot be read: Is a directory"


def test_a_folder_without_keys_ends_every_command_in_one_line(
    signed: Path, key: Key, tmp_path: Path
) -> None:
    (tmp_path / "key.pub").write_bytes(key.public.read_bytes())
    for command in commands_with_keys(signed.parent.parent):
        line = mistake("serving", *command, "--trusted-keys", str(tmp_path))
        assert f"{tmp_path} has no *.pem" in line
        options = ["--trusted-keys", str(key.public)]
        assert "is a file" in mistake_here(commands, *command, *options)
    assert not (signed.parent / "serve.json").exists()


@pytest.mark.long
def test_promote_and_rollback_refuse_what_is_not_signed_by_a_trusted_key(
    trained: Trained, model_dir: Path, key: Key, other_key: Key
) -> None:
    models = model_dir.parent.parent
    publish(trained.model_dir, model_dir.parent / "2")
    publish(model_dir, model_dir.parent / "3", change("saved_model.pb"))
    publish(model_dir, model_dir.parent / "4")
    options = ["--models", str(models), "--trusted-keys", str(key.trusted)]
    assert "2: it is not signed: there is no" in mistake("serving", "promote", "2", *options)
    assert f"3: {CHANGED}" in mistake("serving", "promote", "3", *options)
    line = mistake("serving", "promote", "4", *options[:-1], str(other_key.trusted))
    assert "4: it is signed by a key that is not trusted" in line
    assert not (model_dir.parent / "serve.json").exists()
    finished = run("serving", "promote", "4", *options)
    assert (finished.returncode, finished.stderr) == (0, "")
    finished = run("serving", "rollback", *options)
    assert finished.stdout == "cartpole: version 1 is served from now on instead of 4\n"


class Signed(Running):
    """A running service with trusted keys, and its models folder."""

    def reasons(self) -> dict[int, tuple[str, str]]:
        (model,) = self.send("GET", "/models").json()["models"]
        return {one["version"]: (one["state"], one["reason"]) for one in model["versions"]}

    def messages(self) -> list[dict[str, Any]]:
        """The log, of which every line must be JSON."""
        return [json.loads(line) for line in self.service.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def served(
    trained: Trained,
    signed: Path,
    key: Key,
    other_key: Key,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Signed]:
    """Version 1 is good; the others are not signed, tampered with, or signed by another key."""
    folder = tmp_path_factory.mktemp("served")
    models = shutil.copytree(signed.parent.parent, folder / "models")
    trusted = shutil.copytree(key.trusted, folder / "trusted")
    publish(trained.model_dir, models / "cartpole" / "2")
    for number, (tamper, _) in enumerate(TAMPERING.values(), start=3):
        publish(signed, models / "cartpole" / str(number), tamper)
    sign_with_their_command(models / "cartpole" / "2", other_key)
    options = ("--poll-seconds", "0.1", "--trusted-keys", str(trusted))
    with running_service(models, folder / "log", *options) as service:
        shutil.rmtree(trusted)  # they are read once, at the start
        running = Signed(service, models)
        log = folder / "log"
        wait_until(lambda: log.read_text().count("serving cartpole version 1,") == 2)
        yield running


def test_a_service_serves_the_newest_version_that_a_trusted_key_has_signed(
    served: Signed,
) -> None:
    reasons = served.reasons()
    assert reasons.pop(1)[0] == "served"
    assert reasons.pop(2) == ("refused", "it is signed by a key that is not trusted")
    expected = {n: reason for n, (_, reason) in enumerate(TAMPERING.values(), start=3)}
    assert reasons.keys() == expected.keys()
    for number, reason in expected.items():
        state, said = reasons[number]
        assert (state, said[: len(reason)]) == ("refused", reason)


def test_the_library_adds_nothing_to_the_log_or_to_standard_output(served: Signed) -> None:
    loggers = {line["logger"] for line in served.messages()}
    assert {name.split(".")[0] for name in loggers} == {"serving", "gunicorn"}
    assert "serving.logs" not in loggers  # what was printed
    stdout = served.service.process.stdout
    assert stdout is not None
    assert select.select([stdout], [], [], 0)[0] == []
    refused = [line for line in served.messages() if line["message"].startswith("refused ")]
    assert len(refused) == 2 * (1 + len(TAMPERING))  # each by each worker, once


def test_a_version_is_served_once_it_is_signed(served: Signed, trained: Trained, key: Key) -> None:
    model_dir = publish(trained.model_dir, served.models / "cartpole" / "90")
    unsigned = ("refused", "it is not signed: there is no model.sig")
    wait_until(lambda: served.reasons().get(90) == unsigned)
    signing.sign(model_dir, key.private)
    wait_until(lambda: list(served.versions().values()) == [90, 90])


def test_keys_are_safe_to_use_from_several_threads(model_dir: Path, key: Key) -> None:
    # A request can have a version loaded while the search for versions loads another.
    keys = read_trusted_keys(key.trusted)
    changed = publish(model_dir, model_dir.parent / "2", change("saved_model.pb"))
    wrong: list[str] = []

    def check(path: Path, *, is_good: bool) -> None:
        for _ in range(20):
            try:
                require_signature(path, keys)
            except ArtefactError as error:
                if is_good:
                    wrong.append(str(error))
            else:
                if not is_good:
                    wrong.append("accepted")

    threads = [
        threading.Thread(target=check, args=(path,), kwargs={"is_good": path is model_dir})
        for path in (model_dir, changed, model_dir, changed)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
