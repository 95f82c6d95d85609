"""Signatures of the decision log's files, with the keys that versions are signed with.

Imported only where keys are set: the library is in the extra `sign`, not in `serve`.
"""

import base64
import binascii
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from serving.policy.signature import read_trusted_keys

_ALGORITHM = ec.ECDSA(SHA256())


class PrivateKeyError(Exception):
    """The file holds no private key that can be used; the message says why."""


def read_signer(path: Path) -> Callable[[str], str]:
    """What signs a hash with the private key in a file: ECDSA with SHA-256, in base64.

    Raises:
        PrivateKeyError: it cannot be read, or is not a key as for `actor-critic-train sign`.
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
    return lambda sha256: base64.b64encode(key.sign(sha256.encode(), _ALGORITHM)).decode()


def read_verifier(folder: Path) -> Callable[[str, str], bool]:
    """What tells whether one of the public keys in a folder has signed a hash.

    Raises:
        TrustedKeysError: there is none, or one cannot be used.
    """
    read_trusted_keys(folder)
    loaded = [load_pem_public_key(path.read_bytes()) for path in sorted(folder.glob("*.pem"))]
    keys = [key for key in loaded if isinstance(key, ec.EllipticCurvePublicKey)]

    def is_signed(sha256: str, signature: str) -> bool:
        for key in keys:
            try:
                key.verify(base64.b64decode(signature), sha256.encode(), _ALGORITHM)
            except (InvalidSignature, binascii.Error):
                continue
            return True
        return False

    return is_signed
