"""HTTP by the byte, and what the kernel knows about the service's processes."""

import contextlib
import json
import os
import re
import socket
import struct
from pathlib import Path
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

BODY = b'{"observations":[[0.01,-0.02,0.03,0.04]],"seed":7}'
PICTURE = b"GET /models/cartpole/episode.gif HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTH = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def post(body: bytes = BODY, *fields: str, version: str = "1.1", length: bool = True) -> bytes:
    """A request to `/act`; with `length=False` the fields tell where it ends."""
    lines = [f"POST /act HTTP/{version}", "Host: x", "Content-Type: application/json", *fields]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(body: bytes, size: int, *trailers: str) -> bytes:
    """A body in chunks of that size."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    lines = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return lines + b"0\r\n" + "".join(f"{line}\r\n" for line in trailers).encode() + b"\r\n"


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]  # by their names in small letters
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection, which waits for at most a minute."""

    def __init__(self, url: str, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(60)
        address = urlsplit(url)
        try:
            self.socket.connect((address.hostname, address.port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> Self:
        for part in parts:
            self.socket.sendall(part)
        return self

    def answer(self) -> Answer:
        """The next answer.

        Raises:
            ConnectionError: the connection ended before it.
        """
        head = self._until(b"\r\n\r\n").decode("latin-1")
        status, *lines = head.split("\r\n")
        fields = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)
        }
        size = int(fields.get("content-length", 0))
        while len(self._received) < size:
            self._more()
        body, self._received = self._received[:size], self._received[size:]
        return Answer(int(status.split()[1]), fields, body)

    def ask(self, *parts: bytes) -> Answer:
        return self.send(*parts).answer()

    def ended(self) -> bool:
        """Wait for the end of what the service sends; whether there was nothing more before it."""
        try:
            return not self._received and self.socket.recv(1) == b""
        except ConnectionResetError:
            return False

    def reset(self) -> None:
        """Break the connection off."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._received:
            self._more()
        before, _, self._received = self._received.partition(mark)
        return before

    def _more(self) -> None:
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the service closed the connection")
        self._received += data


def children(pid: int) -> list[int]:
    """The processes that a process started: a service's workers."""
    return [int(pid) for pid in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory_mib(pid: int) -> float:
    """What a process has written to memory; what it shares with its parent is counted whole."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kib = re.search(r"^Anonymous: +(\d+) kB$", rollup, re.MULTILINE)
    assert kib is not None
    return int(kib[1]) / 1024


def metric(url: str, name: str) -> dict[str, float]:
    """Values of a metric of the service, by their labels as they are written."""
    with Wire(url) as wire:
        text = wire.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").body.decode()
    found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", text, re.MULTILINE)
    return {labels: float(value) for labels, value in found}


def client_ports(pid: int) -> set[int]:
    """The ports of the clients whose connections a process has accepted."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has just been closed
            inodes |= set(re.findall(r"^socket:\[(\d+)\]$", os.readlink(descriptor)))
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, _, remote, _, _, _, _, _, _, inode, *_ = line.split()
        if inode in inodes:
            ports.add(int(remote.partition(":")[2], 16))
    return ports
