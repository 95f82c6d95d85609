"""Asks a service whether it is ready, cheaply: container engines do it every few seconds."""

import socket
import sys

# A service that listens on every address is asked on the loopback interface.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # nothing is bound here
_REQUEST = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def problem(host: str, port: int, timeout: float = 4.0) -> str | None:
    """One line that says why the service is not ready; None if it is."""
    host = _LOOPBACK.get(host, host)
    try:
        # A plain socket never goes through a proxy, and takes half the time that http.client does.
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(_REQUEST)
            answer = connection.makefile("rb").read()
    except (OSError, OverflowError, UnicodeError) as error:
        return f"no answer from {host} port {port}: {error}"
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.0 200 ")):
        return None
    import json  # here, because a ready service does not need it

    status = head.partition(b"\r\n")[0].decode(errors="replace")
    try:
        reason = str(json.loads(body)["detail"])
    except (ValueError, TypeError, LookupError):
        reason = f"{host} port {port} answered {status!r}"
    return " ".join(reason.split())


def report(host: str, port: int) -> None:
    """Print "ready", or exit with the reason and status 1."""
    if reason := problem(host, port):
        sys.exit(f"Error: {reason}")
    sys.stdout.write("ready\n")
