"""API keys: who may ask."""

import hashlib
import hmac
import os
import re
from pathlib import Path

from serving.errors import UnauthorizedError


class KeysError(Exception):
    """The keys cannot be read or are no keys; says why, never what they are."""


class Keys:
    """The keys that are valid, several at a time so that they can be exchanged one by one.

    Only their hashes are kept, and every one is compared in a time that tells nothing.
    """

    def __init__(self, keys: list[str]) -> None:
        self._hashes = [_hash(key) for key in keys]

    def __len__(self) -> int:
        return len(self._hashes)

    def require(self, authorization: str | None) -> None:
        """Check the header `Authorization: Bearer <key>` (RFC 6750).

        Raises:
            UnauthorizedError: it is missing or has no valid key.
        """
        scheme, _, key = (authorization or "").partition(" ")
        given = _hash(key.strip())
        matches = [hmac.compare_digest(given, valid) for valid in self._hashes]
        if scheme.lower() != "bearer" or not key.strip():
            raise UnauthorizedError("an API key is needed: Authorization: Bearer <key>")
        if not any(matches):
            raise UnauthorizedError("the API key is none of this service's")


def read_keys(path: Path | None) -> Keys:
    """The keys in a file, one a line, and in the environment, with commas between them.

    Raises:
        KeysError: the file cannot be read or has no key, or one is too short to be one.
    """
    variable = os.environ.get("SERVING_API_KEYS")  # an empty one is none
    keys = [key.strip() for key in variable.split(",")] if variable else []
    if path is not None:
        try:
            lines = path.read_text().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"{path}: {error}") from error
        in_file = [line.strip() for line in lines if line.strip()]
        if not in_file:
            # An empty file must not open the service to everybody.
            raise KeysError(f"{path} has no key")
        keys += in_file
    for number, key in enumerate(keys, start=1):
        if not re.fullmatch(r"[\x21-\x7e]{16,}", key):
            raise KeysError(f"API key {number} is not at least 16 visible ASCII characters")
    return Keys(keys)


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
