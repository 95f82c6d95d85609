"""Signatures of the decision log's files, with the keys that versions are signed with.

Imported only where keys are set: the library is in the extra `sign`, not in `serve`.
"""

import base64
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from serving.policy.signature import read_trusted_keys

_ALGORITHM = ec.ECDSA(SHA256())


class PrivateKeyError(Exception):
    """The file has no usable private key; the message says why."""


class Signer:
    """A private key: ECDSA with SHA-256, with signatures in base64."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    def __call__(self, text: str) -> str:
        """The signature of a text."""
        return base64.b64encode(self._key.sign(text.encode(), _ALGORITHM)).decode()

    def has_made(self, text: str, signature: str) -> bool:
        """Whether this key made a signature of a text."""
        return _is_of(self._key.public_key(), text, signature)


def read_signer(path: Path) -> Signer:
    """Read the private key in a file.

    Raises:
        PrivateKeyError: it cannot be read, or is not a key that `actor-critic-train sign` accepts.
    """
    needed = "a private key in PEM, of an elliptic curve, without a password"
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise PrivateKeyError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PrivateKeyError(f"{path} is not {needed}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PrivateKeyError(f"{path} is not {needed}")
    return Signer(key)


def read_verifier(folder: Path) -> Callable[[str, str], bool]:
    """A function that tells whether one of the public keys in a folder has signed a text.

    Raises:
        TrustedKeysError: there is no key, or one cannot be used.
    """
    read_trusted_keys(folder)
    loaded = [load_pem_public_key(path.read_bytes()) for path in sorted(folder.glob("*.pem"))]
    keys = [key for key in loaded if isinstance(key, ec.EllipticCurvePublicKey)]
    return lambda text, signature: any(_is_of(key, text, signature) for key in keys)


def _is_of(key: ec.EllipticCurvePublicKey, text: str, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature), text.encode(), _ALGORITHM)
    except (InvalidSignature, ValueError):  # or it is not base64
        return False
    return True
