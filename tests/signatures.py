"""Keys, signatures by two programs, and ways to tamper with a signed version."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.artefacts import SIGNATURE, edit, edit_card, files, reseal
from tests.conftest import run

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class Key(NamedTuple):
    """A private key in a file, and a folder with only its public key."""

    private: Path
    trusted: Path

    @property
    def public(self) -> Path:
        return self.trusted / "key.pem"


@pytest.fixture
def model_dir(signed: Path, tmp_path: Path) -> Path:
    """A copy of the signed version, to change."""
    return shutil.copytree(signed, tmp_path / "models" / "cartpole" / "1")


def write_key(folder: Path, key: PrivateKey, password: bytes | None = None) -> Key:
    made = Key(folder / "private.pem", folder / "trusted")
    made.trusted.mkdir(parents=True)
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    made.private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    made.public.write_bytes(public)
    return made


def new_key(folder: Path) -> Key:
    return write_key(folder, ec.generate_private_key(ec.SECP256R1()))


def sign_with_their_command(model_dir: Path, key: Key, *options: str) -> None:
    signature = str(model_dir / SIGNATURE)
    finished = run(
        *("model_signing", "sign", "key", str(model_dir), "--signature", signature),
        *("--private_key", str(key.private), *options),
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def their_verdict(model_dir: Path, public_key: Path) -> int:
    """The exit status of the project's own command."""
    signature = str(model_dir / SIGNATURE)
    return run(
        *("model_signing", "verify", "key", str(model_dir), "--signature", signature),
        *("--public_key", str(public_key)),
    ).returncode


def verify(model_dir: Path, trusted: Path) -> subprocess.CompletedProcess[str]:
    return run("serving", "verify", str(model_dir), "--trusted-keys", str(trusted))


def digests(model_dir: Path) -> dict[str, str]:
    """The SHA-256 of every file but the signature, by its path."""
    return {
        name: hashlib.sha256((model_dir / name).read_bytes()).hexdigest()
        for name in files(model_dir)
        if name != SIGNATURE
    }


def statement(model_dir: Path) -> Any:
    """What a signature signs: an in-toto statement in a DSSE envelope in a Sigstore bundle."""
    bundle = json.loads((model_dir / SIGNATURE).read_text())
    return json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))


def replace_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def change(name: str) -> Callable[[Path], None]:
    """Change a byte of a file, and the card so that it agrees."""

    def change_byte(model_dir: Path) -> None:
        replace_byte(model_dir / name)
        reseal(model_dir)

    return change_byte


def add(name: str) -> Callable[[Path], None]:
    def add_file(model_dir: Path) -> None:
        (model_dir / name).parent.mkdir(exist_ok=True)
        (model_dir / name).write_text("new")
        reseal(model_dir)

    return add_file


def remove_picture(model_dir: Path) -> None:
    (model_dir / "assets.extra" / "episode.gif").unlink()
    reseal(model_dir)


def write_signature(content: bytes) -> Callable[[Path], object]:
    return lambda model_dir: (model_dir / SIGNATURE).write_bytes(content)


def edit_signature(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda model_dir: edit(model_dir / SIGNATURE, change)


def put_folder_in_place(model_dir: Path) -> None:
    (model_dir / SIGNATURE).unlink()
    (model_dir / SIGNATURE).mkdir()


def forge(model_dir: Path) -> None:
    """Change a file, and the card and the statement that is signed so that they agree."""
    before = digests(model_dir)
    change("saved_model.pb")(model_dir)
    text = json.dumps(statement(model_dir))
    for name, digest in digests(model_dir).items():
        text = text.replace(before[name], digest)
    changed = json.loads(text)
    ordered = b"".join(bytes.fromhex(one["digest"]) for one in changed["predicate"]["resources"])
    changed["subject"][0]["digest"]["sha256"] = hashlib.sha256(ordered).hexdigest()
    payload = base64.b64encode(json.dumps(changed).encode()).decode()
    edit(model_dir / SIGNATURE, lambda bundle: bundle["dsseEnvelope"].update(payload=payload))


CHANGED = "it or model.sig was changed after signing: "
# What is done to a signed version, and the reason for which it is then refused.
TAMPERING: dict[str, tuple[Callable[[Path], object], str]] = {
    "no signature": (
        lambda model_dir: (model_dir / SIGNATURE).unlink(),
        "it is not signed: there is no model.sig",
    ),
    "a changed byte": (
        lambda model_dir: replace_byte(model_dir / "saved_model.pb"),
        "saved_model.pb does not match its checksum on the card",
    ),
    "a changed byte that the card agrees with": (change("saved_model.pb"), CHANGED),
    "a changed card": (
        lambda model_dir: edit_card(model_dir, lambda card: card.update(created="another day")),
        CHANGED,
    ),
    "an added file": (
        lambda model_dir: (model_dir / "new").touch(),
        "new is not on the card",
    ),
    "an added file that the card agrees with": (add("assets.extra/new"), CHANGED),
    "a file of git": (add(".gitattributes"), CHANGED),
    "a file in a folder of git": (add(".github/new"), CHANGED),
    "another signature in a folder": (add("assets.extra/model.sig"), CHANGED),
    "a removed file": (
        lambda model_dir: (model_dir / "assets.extra" / "episode.gif").unlink(),
        "assets.extra/episode.gif is missing",
    ),
    "a removed file that the card agrees with": (remove_picture, CHANGED),
    "an empty signature": (write_signature(b""), "model.sig is not a signature: "),
    "no JSON": (write_signature(b"\x89PNG\r\n\xff"), "model.sig is not a signature: "),
    "deep JSON": (write_signature(b"[" * 100_000), "model.sig is not a signature: "),
    "deep JSON in a part": (
        write_signature(b'{"more":' + b"[" * 100_000),
        "model.sig is not a signature: ",
    ),
    "no bundle": (write_signature(b"{}"), "model.sig is not a signature: "),
    "a bundle that names no key": (
        edit_signature(lambda bundle: bundle["verificationMaterial"]["publicKey"].clear()),
        "it is signed by a key that is not trusted",
    ),
    "a bundle that names its key as something other than text": (
        edit_signature(
            lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint=None)
        ),
        "model.sig is not a signature: ",
    ),
    "a bundle without an envelope": (
        edit_signature(lambda bundle: bundle.pop("dsseEnvelope")),
        CHANGED,
    ),
    "a bundle with an empty envelope": (
        edit_signature(lambda bundle: bundle["dsseEnvelope"].update(signatures=[])),
        CHANGED,
    ),
    "a statement that agrees with a changed file": (
        forge,
        "model.sig was not made with the key that it names",
    ),
    "a huge signature": (
        lambda model_dir: os.truncate(model_dir / SIGNATURE, 2**20 + 1),
        "model.sig has more than 1048576 bytes",
    ),
    "a folder in the place of the signature": (
        put_folder_in_place,
        "it is not signed: there is no model.sig",
    ),
}


def mistake(*arguments: str) -> str:
    """The one line on standard error of a command that is used wrongly."""
    finished = run(*arguments, timeout=60)  # a service that starts would not end
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr.startswith("Error: ")
    assert finished.stderr.count("\n") == 1
    return finished.stderr


def mistake_here(commands: click.Group, *arguments: str) -> str:
    """The same without a process of its own."""
    with pytest.raises(click.ClickException) as wrong:
        commands.main(arguments, standalone_mode=False)
    assert wrong.value.exit_code == 2
    assert "\n" not in wrong.value.format_message()
    return wrong.value.format_message()


def commands_with_keys(models: Path) -> list[list[str]]:
    """The commands that take trusted keys."""
    return [
        ["run", "--models", str(models), "--port", "0"],
        ["verify", str(models / "cartpole" / "1")],
        ["promote", "1", "--models", str(models)],
        ["rollback", "--models", str(models)],
    ]
