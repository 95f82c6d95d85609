"""The end of a listening socket, without a connection lost that the kernel has taken for it."""

import ctypes
import os
import socket
import struct
import sys

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# Classic BPF on TCP segments: if SYN is among the flags, drop it, else take all of it.
_DROP_SYN = [(0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0x40000)]


def turn_away(listener: socket.socket, parent: int) -> None:
    """Have the kernel take no more connections, if no process is to accept them later.

    Closing a listening socket resets what waits to be accepted, and between the last accept
    and the close there is always a moment. Whoever is turned away tries again by itself, and
    finds the socket closed.

    Args:
        listener: shared with `parent` and its other children, under one number.
        parent: the process that goes on, if it still has that socket open.
    """
    if sys.platform != "linux" or _is_open(listener, parent):
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in _DROP_SYN))
    pointer = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


def _is_open(listener: socket.socket, process: int) -> bool:
    number = listener.fileno()
    try:
        return os.readlink(f"/proc/{process}/fd/{number}") == os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return False
