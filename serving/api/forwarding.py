"""What headers say about a request's origin: its client behind proxies, and its trace (W3C)."""

import os
import re
from collections.abc import Sequence
from ipaddress import ip_address

from serving.settings import Network

# version, trace-id, parent-id, trace-flags; only versions after 00 may have more fields.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?"
)


def client_address(peer: str, forwarded_for: str | None, trusted: Sequence[Network]) -> str:
    """The address of the client that a request comes from.

    Args:
        peer: the other end of the connection.
        forwarded_for: `X-Forwarded-For`, to which each proxy appends the address of its client.
        trusted: the networks of trusted proxies.

    Returns:
        The last address that is not a trusted proxy's, or the first if all are.
    """
    address = _plain(peer)
    for before in reversed((forwarded_for or "").split(",")):
        try:
            if not any(ip_address(address) in network for network in trusted):
                break
            address = _plain(str(ip_address(before.strip())))
        except ValueError:  # not an address: the proxy that wrote it is the last known one
            break
    return address


def _plain(address: str) -> str:
    """Write an IPv4-mapped address of an IPv6 socket, such as `::ffff:127.0.0.1`, as IPv4."""
    try:
        mapped = getattr(ip_address(address), "ipv4_mapped", None)
    except ValueError:
        return address
    return address if mapped is None else str(mapped)


def traceparent(given: str | None) -> str | None:
    """The `traceparent` of an answer (W3C Trace Context): the request's trace, and a new parent-id.

    None if the request's own is missing or invalid.
    """
    if given is None:
        return None
    match = _TRACEPARENT.fullmatch(given)
    if match is None or (match[0].startswith("00") and match[3]):
        return None
    trace_id, flags, _ = match.groups()
    return f"00-{trace_id}-{os.urandom(8).hex()}-{int(flags, 16) & 1:02x}"
