"""Whether a trusted key has signed a version, in the OpenSSF model-signing format.

Imported only where keys are set: the library is in the extra `sign`, not in `serve`.
"""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from model_signing import hashing, verifying

from serving.errors import first_line
from serving.policy.artefact import SIGNATURE, ArtefactError

_MAX_DETAIL = 200  # characters of the library's message, which grows with the number of files

# The verifier for each public key, by the hint with which a signature names its key.
TrustedKeys = Mapping[str, verifying.Config]


class TrustedKeysError(Exception):
    """The trusted keys cannot be used; the message says why."""


class _PublicKey(msgspec.Struct, frozen=True):
    hint: str = ""


class _VerificationMaterial(msgspec.Struct, rename="camel", frozen=True):
    public_key: _PublicKey = _PublicKey()  # a signature with a certificate has none


class _Bundle(msgspec.Struct, rename="camel", frozen=True):
    """The part of a signature, a Sigstore bundle, that names the key to check it with."""

    verification_material: _VerificationMaterial


class _Hashing(hashing.Config):
    """Also hashes files that a signature says to ignore, so that none can be left out of it.

    The library's class ignores such files, even in all versions that it checks later.
    """

    def add_ignored_paths(self, **_: Any) -> None:
        """Ignore nothing more."""


def require_signature(model_dir: Path, keys: TrustedKeys) -> None:
    """Check that one of the keys has signed every file of a version's copy.

    Call `artefact.read` first: that refuses a signature that is too large.

    Raises:
        ArtefactError: it is not signed, is signed by another key, or was changed since.
    """
    path = model_dir / SIGNATURE
    if not path.is_file():
        raise ArtefactError(f"it is not signed: there is no {SIGNATURE}")
    try:
        bundle = msgspec.json.decode(path.read_bytes(), type=_Bundle)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtefactError(f"{SIGNATURE} is not a signature: {error}") from error
    # Anyone can write any hint: it only selects the key that the signature is checked with.
    verifier = keys.get(bundle.verification_material.public_key.hint)
    if verifier is None:
        raise ArtefactError("it is signed by a key that is not trusted")
    try:
        verifier.verify(model_dir, path)
    except InvalidSignature as error:
        raise ArtefactError(f"{SIGNATURE} was not made with the key that it names") from error
    except Exception as error:  # of many types, as any part of the bundle may be missing
        detail = first_line(error)[:_MAX_DETAIL]
        raise ArtefactError(f"it or {SIGNATURE} was changed after signing: {detail}") from error


@functools.cache  # so that a service and all its workers keep the keys read at its start
def read_trusted_keys(folder: Path) -> TrustedKeys:
    """Read the public keys in a folder, the files `*.pem`.

    Raises:
        TrustedKeysError: there is none, or one cannot be read or used.
    """
    verifiers = {}
    # By default, Git's files would be ignored too.
    every_file = _Hashing()  # type: ignore[no-untyped-call]  # of the library
    every_file.set_ignored_paths(paths=[SIGNATURE], ignore_git_paths=False)
    try:
        for path in sorted(path for path in folder.iterdir() if path.suffix == ".pem"):
            verifiers[_hint(path)] = (
                verifying.Config()
                .use_elliptic_key_verifier(public_key=path)
                .set_hashing_config(every_file)
            )
    except OSError as error:
        raise TrustedKeysError(f"{error.filename} cannot be read: {error.strerror}") from error
    # AttributeError: a key of another type has no curve.
    except (ValueError, AttributeError, UnsupportedAlgorithm) as error:
        needed = "a public key in PEM, of the curve P-256, P-384 or P-521"
        raise TrustedKeysError(f"{path} is not {needed}") from error
    if not verifiers:
        raise TrustedKeysError(f"{folder} has no *.pem, so no version could be served")
    return verifiers


def _hint(path: Path) -> str:
    """How a signature names a public key: the SHA-256 of its PEM."""
    key = load_pem_public_key(path.read_bytes())
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()
