"""Closing a listening socket without losing connections that the kernel has completed."""

import contextlib
import os
import socket
import sys

# netinet/in.h and linux/in6.h; Python has no names for them.
_IP_MINTTL = 21
_IPV6_MINHOPCOUNT = 73


def stop_new_connections(listener: socket.socket, parent: int) -> None:
    """Have the kernel begin no more connections, if no other process will accept them.

    Closing a listening socket resets what waits to be accepted, and between the last accept and
    the close there is always a moment. No packet has come over 0 hops, so with a minimum of 255
    the kernel ignores every SYN (RFC 5082, and `ip(7)`), for which it needs no privilege. A
    handshake under way is completed. Clients that are ignored send their SYN again after a
    second and find the socket closed.

    Args:
        listener: shared with `parent` and its other children, under one number.
        parent: the process that keeps running, if it still has that socket open.
    """
    if not is_open(listener, parent):
        _set_minimum_hops(listener, 255)


def accept_all_packets(connection: socket.socket) -> None:
    """Undo the minimum that a connection has from its listening socket."""
    _set_minimum_hops(connection, 0)


def _set_minimum_hops(sock: socket.socket, hops: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, hops)
        if sock.family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, hops)


def is_open(listener: socket.socket, process: int) -> bool:
    """Whether another process has that socket open too, under the same number."""
    number = listener.fileno()
    try:
        own = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return True  # without /proc, nothing shows that it is closed
    try:
        return os.readlink(f"/proc/{process}/fd/{number}") == own
    except OSError:
        return False
