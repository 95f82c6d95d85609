"""API keys, and what each may do."""

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import NamedTuple

from serving.errors import InvalidKeyError, MissingKeyError


class KeysError(Exception):
    """The keys cannot be read or are not valid; says why, never what they are."""


class Key(NamedTuple):
    """A key; only its hash is kept.

    Attributes:
        digest: its SHA-256.
        name: for logs; the first 8 hex digits of the digest if the operator gave none.
        operates: whether it may change what is served.
    """

    digest: bytes
    name: str
    operates: bool


class Keys:
    """The keys that are valid: several, so that they can be rotated."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, authorization: str | None) -> Key:
        """The key in the header `Authorization: Bearer <key>` (RFC 6750).

        Every key is compared, each in constant time.

        Raises:
            InvalidKeyError: it is not one of these.
            MissingKeyError: there is none.
        """
        scheme, _, given = (authorization or "").partition(" ")
        digest = _hash(given.strip())
        matches = [key for key in self._keys if hmac.compare_digest(digest, key.digest)]
        if scheme.lower() != "bearer" or not given.strip():
            raise MissingKeyError("an API key is needed: Authorization: Bearer <key>")
        if not matches:
            raise InvalidKeyError("this service does not know the API key")
        return matches[0]


def read_keys(path: Path | None) -> Keys:
    """The keys in a file, one per line, and in the environment, separated by commas.

    Raises:
        KeysError: the file cannot be read or has no key, or an entry is not a valid key.
    """
    variable = os.environ.get("SERVING_API_KEYS")  # an empty one counts as not set
    entries = variable.split(",") if variable else []
    if path is not None:
        try:
            lines = path.read_text().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise KeysError(f"{path}: {error}") from error
        in_file = [line for line in lines if line.strip()]
        if not in_file:
            # An empty file must not open the service to everybody.
            raise KeysError(f"{path} has no key")
        entries += in_file
    keys = [_key(number, entry) for number, entry in enumerate(entries, start=1)]
    if len({key.digest for key in keys}) < len(set(keys)):
        raise KeysError("an API key has two names or rights")
    return Keys(keys)


def _key(number: int, entry: str) -> Key:
    """Parse `<key>` or `<key> <name> <right>`.

    The right is `decide`, to ask for decisions and reports, or `operate`, to change what is served
    as well.
    """
    secret, *rest = entry.split() or [""]
    if not re.fullmatch(r"[\x21-\x7e]{16,}", secret):
        raise KeysError(f"API key {number} is not at least 16 visible ASCII characters")
    digest = _hash(secret)
    name, right = rest if len(rest) == 2 else (digest.hex()[:8], "" if rest else "operate")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) or right not in ("decide", "operate"):
        raise KeysError(f"API key {number} is not followed by a name and 'decide' or 'operate'")
    return Key(digest, name, right == "operate")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
