"""Which client and which trace a request says that it comes from, and who is believed."""

import re
from ipaddress import ip_network

import pytest

from serving.api.forwarding import client_address, traceparent

TRUSTED = [ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # no proxy of ours: not believed
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("127.0.0.1", "192.0.2.1, 198.51.100.1", "198.51.100.1"),  # the client may have sent one
        ("127.0.0.1", "198.51.100.1, 10.2.3.4", "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1,10.2.3.4 , 10.0.0.1", "198.51.100.1"),
        ("127.0.0.1", "10.9.9.9, 10.2.3.4", "10.9.9.9"),  # a client inside
        ("fd00::1", "2001:db8::7", "2001:db8::7"),
        ("127.0.0.1", "2001:DB8:0::7", "2001:db8::7"),
        # As a socket of IPv6 gives addresses of IPv4, and proxies that listen on one.
        ("::ffff:127.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("::ffff:203.0.113.9", None, "203.0.113.9"),
        ("fd00::1", "198.51.100.1, ::ffff:10.0.0.1", "198.51.100.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1, <script>, 10.0.0.1", "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(
    peer: str, forwarded_for: str | None, address: str
) -> None:
    assert client_address(peer, forwarded_for, TRUSTED) == address


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"  # of the specification


@pytest.mark.parametrize(
    ("given", "flags"),
    [
        (f"00-{TRACE}-{PARENT}-01", "01"),
        (f"00-{TRACE}-{PARENT}-00", "00"),
        (f"00-{TRACE}-{PARENT}-ff", "01"),  # only one flag has a meaning
        (f"01-{TRACE}-{PARENT}-01-what.the-future-will-be-like", "01"),
        (f"cc-{TRACE}-{PARENT}-01", "01"),
    ],
)
def test_an_answer_belongs_to_the_trace_of_its_request(given: str, flags: str) -> None:
    answered = traceparent(given)
    assert answered is not None
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-{flags}", answered)
    assert PARENT not in answered


@pytest.mark.parametrize(
    "given",
    [
        None,
        "",
        "x",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"cc-{TRACE}-{PARENT}-01.more",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-0",
        f"00-{TRACE}-{PARENT}-01, 00-{TRACE}-{PARENT}-01",
    ],
)
def test_what_is_no_traceparent_is_ignored(given: str | None) -> None:
    assert traceparent(given) is None
