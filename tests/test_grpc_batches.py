"""Calls that are decided together, and those that are too many."""

import threading
import time
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import grpc
import pytest

from serving.api.batch import in_batches
from serving.api.body import INLINE_BYTES
from serving.metrics import Metrics
from serving.rpc.calls import Calls

CONTEXT = SimpleNamespace(
    invocation_metadata=lambda: (),
    peer=lambda: "ipv4:127.0.0.1:5",
    set_trailing_metadata=lambda _metadata: None,
)


CALLS = 100


def method_of(max_large: int, **parts: Any) -> Any:
    """The handler of a method that decides, in a service with these parts."""
    api: Any = SimpleNamespace(
        budget=SimpleNamespace(take=lambda _size: True, give_back=lambda _size: None),
        exchange=SimpleNamespace(client=lambda *_: "", finish=lambda *_: None),
        **parts,
    )
    watch: Any = SimpleNamespace(begin=lambda _call: None, end=lambda _call: None)
    decode: Any = None
    return Calls(api, max_large, watch).decision("/Service/Method", decode).unary_unary


def test_the_call_that_decides_for_others_is_answered_while_more_of_them_come() -> None:
    clients: list[threading.Thread] = []

    def decide(ready: list[Any], _decode: Any, *, are_large: bool) -> list[bytes]:
        """While one batch is decided, the call of the next comes."""
        assert not are_large
        if len(clients) < CALLS:
            clients.append(threading.Thread(target=method, args=[b"other", CONTEXT]))
            clients[-1].start()
        time.sleep(0.01)
        return [call.message for call in ready]

    method = method_of(2, batches=SimpleNamespace(decide=decide))
    assert method(b"first", CONTEXT) == b"first"
    came = len(clients)
    while len(clients) < CALLS:
        time.sleep(0.01)
    for client in clients:
        client.join()
    assert came < CALLS


def test_a_large_call_too_many_is_refused_and_counted() -> None:
    metrics = Metrics()
    context = SimpleNamespace(**vars(CONTEXT), abort=Mock(side_effect=RuntimeError))
    with pytest.raises(RuntimeError):
        method_of(0, metrics=metrics)(bytes(INLINE_BYTES + 1), context)
    assert context.abort.call_args[0][0] is grpc.StatusCode.UNAVAILABLE
    assert b"policy_http_shed_total 1.0" in metrics.text()[0]


def test_a_batch_has_limited_bytes_and_keeps_the_order() -> None:
    sizes = [1, INLINE_BYTES, INLINE_BYTES, INLINE_BYTES, INLINE_BYTES - 1, 1, INLINE_BYTES]
    batches = list(in_batches(list(enumerate(sizes)), lambda one: one[1]))
    assert [[index for index, _ in batch] for batch in batches] == [[0, 1, 2, 3, 4], [5, 6]]
    assert list(in_batches([], len)) == []
