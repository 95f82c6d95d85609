"""A DNS server, as compose has one: `python -m tests.cluster.envoy.names FILE`.

It answers every name with the IPv4 addresses in the file, which it reads for each question.
"""

import socket
import struct
import sys
from pathlib import Path

_A = 1  # RFC 1035, section 3.2.2
_POINTER_TO_QUESTION = 0xC00C
_TTL_SECONDS = 1


def answer(query: bytes, addresses: list[str]) -> bytes:
    """The answer to a query with one question (RFC 1035, section 4)."""
    end = query.index(b"\0", 12) + 5  # of the question: a name, its type and its class
    kind, _ = struct.unpack("!HH", query[end - 4 : end])
    # No name has IPv6 addresses or anything else: an answer without records.
    found = addresses if kind == _A else []
    head = query[:2] + struct.pack("!HHHHH", 0x8580, 1, len(found), 0, 0)
    records = [
        struct.pack("!HHHIH", _POINTER_TO_QUESTION, _A, 1, _TTL_SECONDS, 4) + socket.inet_aton(one)
        for one in found
    ]
    return head + query[12:end] + b"".join(records)


def main() -> None:
    """Answer until the end of the process."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))
        while True:
            query, client = server.recvfrom(512)
            server.sendto(answer(query, Path(sys.argv[1]).read_text().split()), client)


if __name__ == "__main__":
    main()
