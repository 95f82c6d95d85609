"""`training sign`: signatures that others verify, written whole, with the keys that can sign."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.artefacts import CARD, SIGNATURE, files
from tests.conftest import ENVIRONMENT, ROOT, Trained, run
from tests.signatures import (
    Key,
    add,
    commands_with_keys,
    digests,
    mistake,
    mistake_here,
    model_dir,
    sign_with_their_command,
    statement,
    their_verdict,
    verify,
    write_key,
)
from tests.tools import require_program
from training import signing
from training.cli import commands
from training.files import sync
from training.versions import staging_folder

__all__ = ["model_dir"]  # a fixture


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=["P-256", "P-384", "P-521"]
)
def test_the_projects_own_command_and_verify_accept_our_signature(
    trained: Trained, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    key = write_key(tmp_path, ec.generate_private_key(curve))
    model_dir = shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "1")
    finished = run("training", "sign", str(model_dir), "--key", str(key.private))
    assert finished.returncode == 0, finished.stderr
    assert their_verdict(model_dir, key.public) == 0
    accepted = verify(model_dir, key.trusted)
    assert (accepted.returncode, accepted.stderr) == (0, "")
    assert f"signed         by one of the keys in {key.trusted}\n" in accepted.stdout


def test_the_documented_commands_make_a_key_that_signs_and_is_trusted(
    trained: Trained, tmp_path: Path
) -> None:
    require_program("openssl", "openssl")
    model_dir = shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "1")
    document = (ROOT / "docs" / "operations.md").read_text()
    lines = re.findall(r"^    (openssl e.*|mkdir trusted)$", document, re.MULTILINE)
    assert len(lines) == 3
    subprocess.run(["sh", "-ec", "\n".join(lines)], cwd=tmp_path, capture_output=True, check=True)
    finished = run("training", "sign", str(model_dir), "--key", str(tmp_path / "private.pem"))
    assert finished.returncode == 0, finished.stderr
    assert verify(model_dir, tmp_path / "trusted").returncode == 0


@pytest.mark.parametrize("options", [[], ["--no-ignore-git-paths"]])
def test_verify_accepts_a_signature_by_the_projects_own_command(
    trained: Trained, key: Key, tmp_path: Path, options: list[str]
) -> None:
    model_dir = shutil.copytree(trained.model_dir, tmp_path / "cartpole" / "1")
    sign_with_their_command(model_dir, key, *options)
    assert verify(model_dir, key.trusted).returncode == 0


def test_a_signature_covers_every_file_by_its_path(
    signed: Path, trained: Trained, model_dir: Path, key: Key
) -> None:
    assert files(signed) == sorted([*files(trained.model_dir), SIGNATURE])
    add(".gitattributes")(model_dir)  # which the library leaves out by default
    signing.sign(model_dir, key.private)
    for folder in (signed, model_dir):
        resources = statement(folder)["predicate"]["resources"]
        assert {one["name"]: one["digest"] for one in resources} == digests(folder)
        assert {one["algorithm"] for one in resources} == {"sha256"}


def test_a_reader_sees_the_old_signature_or_the_new_one_and_no_other_file(
    model_dir: Path, other_key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (model_dir / name).read_bytes() for name in files(model_dir)}
    (model_dir / SIGNATURE).chmod(0o600)
    synced: list[Path] = []

    def look(path: Path) -> None:
        now = {name: (model_dir / name).read_bytes() for name in files(model_dir)}
        if synced:
            assert path == model_dir  # the new name, after the rename
            assert now.pop(SIGNATURE) != before.pop(SIGNATURE)
        else:
            assert json.loads(path.read_text())["dsseEnvelope"]  # it is complete
        assert now == before
        synced.append(path)

    monkeypatch.setattr(signing, "sync", look)
    mask = os.umask(0o077)
    try:
        signing.sign(model_dir, other_key.private)
    finally:
        os.umask(mask)
    assert len(synced) == 2
    assert (model_dir / SIGNATURE).stat().st_mode & 0o777 == 0o644


def test_a_version_is_signed_while_others_are_exported_beside_it(
    model_dir: Path, other_key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export_meanwhile(path: Path) -> None:
        with staging_folder(model_dir.parent):
            sync(path)

    monkeypatch.setattr(signing, "sync", export_meanwhile)
    (model_dir.parent / ".writing-left").mkdir()
    signing.sign(model_dir, other_key.private)
    assert verify(model_dir, other_key.trusted).returncode == 0
    assert [path.name for path in model_dir.parent.iterdir()] == ["1"]


def test_a_signature_that_cannot_be_written_leaves_the_old_one(
    model_dir: Path, other_key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (model_dir / SIGNATURE).read_bytes()

    def fail(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(signing, "sync", fail)
    with pytest.raises(OSError, match="No space left"):
        signing.sign(model_dir, other_key.private)
    assert (model_dir / SIGNATURE).read_bytes() == before
    assert [path.name for path in model_dir.parent.iterdir()] == ["1"]


def test_what_cannot_sign_or_be_signed_is_one_line_and_exit_status_2(
    model_dir: Path, key: Key, tmp_path: Path
) -> None:
    unfit = [
        write_key(tmp_path / "rsa", rsa.generate_private_key(65537, 2048)),
        write_key(tmp_path / "ed25519", ed25519.Ed25519PrivateKey.generate()),
        write_key(tmp_path / "curve", ec.generate_private_key(ec.SECP256K1())),
        write_key(tmp_path / "password", ec.generate_private_key(ec.SECP256R1()), b"secret"),
    ]
    before = (model_dir / SIGNATURE).read_bytes()
    for path in (*(one.private for one in unfit), key.public, model_dir / CARD):
        line = mistake_here(commands, "sign", str(model_dir), "--key", str(path))
        assert line.startswith(f"{path} is not a private key in PEM, of the curve P-256, P-384")
    assert "--key" in mistake_here(commands, "sign", str(model_dir))
    line = mistake("training", "sign", str(model_dir), "--key", "no/such.pem")
    assert "'no/such.pem' does not exist" in line
    line = mistake("training", "sign", str(tmp_path), "--key", str(key.private))
    assert line == f"Error: {tmp_path} is not an exported version: it has no {CARD}\n"
    line = mistake_here(commands, "sign", "no/such", "--key", str(key.private))
    assert "'no/such' does not exist" in line
    (model_dir / "link").symlink_to("/etc/passwd")
    assert "symlink" in mistake("training", "sign", str(model_dir), "--key", str(key.private))
    assert (model_dir / SIGNATURE).read_bytes() == before
    assert [path.name for path in model_dir.parent.iterdir()] == ["1"]


def run_within(code: str, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that has first run some code."""
    start = f"import sys; {code}; from {program}.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", start, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("package", ["model_signing", "OpenSSL"])
def test_without_the_packages_one_line_says_where_they_are_and_nothing_else_needs_them(
    model_dir: Path, key: Key, package: str
) -> None:
    hidden = f"sys.modules[{package!r}] = None"
    sign = ["sign", str(model_dir), "--key", str(key.private)]
    keys = ["--trusted-keys", str(key.trusted)]
    for program, arguments in [
        ("training", sign),
        *(
            ("serving", [*command, *keys])
            for command in commands_with_keys(model_dir.parent.parent)
        ),
    ]:
        finished = run_within(hidden, program, *arguments)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert finished.stderr.startswith("Error: ")
        assert finished.stderr.count("\n") == 1
        assert "actor-critic[sign]" in finished.stderr
        assert package in finished.stderr
    finished = run_within(hidden, "serving", "verify", str(model_dir))
    assert finished.returncode == 0, finished.stderr


def test_neither_signing_nor_checking_asks_the_network(model_dir: Path, key: Key) -> None:
    no_network = (
        "sys.addaudithook(lambda event, _: event in "
        "('socket.connect', 'socket.getaddrinfo', 'socket.sendto') and sys.exit(event))"
    )
    probe = f"{no_network}; import socket; socket.create_connection(('127.0.0.1', 9))"
    assert run_within(probe, "serving").stderr == "socket.getaddrinfo\n"
    finished = run_within(no_network, "training", "sign", str(model_dir), "--key", str(key.private))
    assert finished.returncode == 0, finished.stderr
    finished = run_within(
        no_network, "serving", "verify", str(model_dir), "--trusted-keys", str(key.trusted)
    )
    assert finished.returncode == 0, finished.stderr
