"""Closing a listening socket without losing connections that the kernel has completed."""

import contextlib
import os
import socket
import sys

# netinet/in.h and linux/in6.h; Python has no names for them.
_IP_MINTTL = 21
_IPV6_MINHOPCOUNT = 73


def stop_new_connections(listener: socket.socket, parent: int) -> None:
    """Have the kernel start no more connections, if no other process will accept them.

    Closing a listening socket resets connections that wait to be accepted, and some may arrive
    between the last accept and the close. With a minimum TTL of 255, more than senders usually set,
    the kernel ignores every SYN (RFC 5082, and `ip(7)`); this needs no privilege. Handshakes under
    way are completed. Clients that are ignored send their SYN again after a second and find the
    socket closed.

    Args:
        listener: shared with `parent` and its other children, under one descriptor.
        parent: the master; if it still has that socket open, other workers will accept.
    """
    if not is_open(listener, parent):
        _set_minimum_hops(listener, 255)


def accept_all_packets(connection: socket.socket) -> None:
    """Undo the minimum TTL that a connection inherits from its listening socket."""
    _set_minimum_hops(connection, 0)


def _set_minimum_hops(sock: socket.socket, hops: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, hops)
        if sock.family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, hops)


def is_open(listener: socket.socket, process: int) -> bool:
    """Whether another process has that socket open too, under the same descriptor."""
    number = listener.fileno()
    try:
        own = os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return True  # without /proc, nothing shows that it is closed
    try:
        return os.readlink(f"/proc/{process}/fd/{number}") == own
    except OSError:
        return False
