"""Where a request ends does not depend on how its bytes arrive, nor on what came before it."""

import itertools
import socket
from contextlib import closing

from hypothesis import given
from hypothesis import strategies as st

from tests.faults.framing import (
    MAX_BODY_BYTES,
    Ours,
    Sent,
    in_chunks,
    ours_of,
    with_length,
    without_body,
)

# Bodies that look like what ends a request, or begins one.
bodies = st.sampled_from([b"\r\n0\r\n\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]) | st.binary(
    max_size=40
)
numbers = st.integers(0, 9)
requests = st.one_of(
    st.builds(with_length, numbers, bodies, st.sampled_from([0, 1, 15])),
    st.builds(without_body, numbers),
    st.builds(
        in_chunks,
        numbers,
        st.lists(bodies, max_size=4),
        st.sampled_from([b"", b";a", b';a="b"']),
        st.sampled_from([1, 5, 15]),
        st.lists(st.sampled_from([b"X: 0\r\n", b"Y: z\r\n"]), max_size=2),
    ),
)


@given(st.lists(requests, max_size=5), st.data())
def test_any_split_of_any_requests_gives_the_same_requests(
    listener: socket.socket, sent: list[Sent], data: st.DataObject
) -> None:
    raw = b"".join(request.raw for request in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    pieces = [raw[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(raw)])]
    with closing(Ours(listener)) as connected:
        assert connected.outcome(pieces) == ([request.seen for request in sent], "waits")
        assert connected.connection.held_bytes == connected.budget.held == 0


@given(requests)
def test_a_request_in_single_bytes_is_whole_with_its_last_byte(
    listener: socket.socket, sent: Sent
) -> None:
    with closing(Ours(listener)) as connected:
        for byte in sent.raw[:-1]:
            connected.send(bytes([byte]))
        assert connected.requests == []
        connected.send(sent.raw[-1:])
        assert connected.requests == [sent.seen]


def test_a_head_that_comes_again_is_known_only_with_its_blank_line(ours: Ours) -> None:
    first = without_body(1)
    longer = first.raw[:-2] + b"Content-Length: 3\r\n\r\nabc"
    ours.outcome([first.raw, first.raw, longer, first.raw, first.raw[:9], first.raw[9:]])
    assert ours.requests == [first.seen] * 2 + [first.seen._replace(body=b"abc")] + [first.seen] * 2
    ours.outcome([first.raw, first.raw[:-2] + b"A:"])
    assert ours.requests[5:] == [first.seen]
    ours.send(b"\r\n\r\n")
    assert ours.requests[5:] == [first.seen] * 2


def test_the_second_half_of_a_head_is_no_head(ours: Ours) -> None:
    first = with_length(1, b"abc", 0)
    assert ours.outcome([first.raw[:20], first.raw[20:], first.raw[20:]]) == (
        [first.seen],
        "refused",
    )


def test_a_known_head_does_not_take_what_follows_its_request_for_a_part_of_it(ours: Ours) -> None:
    first, other = with_length(1, b"abc", 0), without_body(2)
    both = first.raw + other.raw
    ours.outcome([first.raw, both, both, first.raw, both, first.raw + b"GET", b"\n\r\n"])
    seen = first.seen, other.seen
    assert ours.requests == [first.seen, *seen, *seen, first.seen, *seen, first.seen]
    assert ours.end == "refused"


def test_what_follows_a_body_of_chunks_is_whole_however_much_it_is(ours: Ours) -> None:
    first, other = in_chunks(1, [b"x"] * MAX_BODY_BYTES, b";abcdef", 1, []), without_body(2)
    head = first.raw.index(b"\r\n\r\n") + 4
    ours.outcome([first.raw[:head], first.raw[head:] + other.raw * 1_000])
    assert ours.requests == [first.seen] + [other.seen] * 1_000


def test_no_head_is_known_after_a_refusal(listener: socket.socket, ours: Ours) -> None:
    good = without_body(1)
    assert ours.outcome([good.raw, b"\n\r\n", good.raw]) == ([good.seen], "refused")
    assert ours_of(listener, [good.raw[:-2] + b"\n"]) == ([], "refused")
