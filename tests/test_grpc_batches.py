"""Calls that are decided together: none waits for those that come after it."""

import threading
import time
from types import SimpleNamespace
from typing import Any

from serving.rpc.calls import Calls

CONTEXT = SimpleNamespace(
    invocation_metadata=lambda: (),
    peer=lambda: "ipv4:127.0.0.1:5",
    set_trailing_metadata=lambda _metadata: None,
)


CALLS = 100


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

    api: Any = SimpleNamespace(
        budget=SimpleNamespace(take=lambda _size: True, give_back=lambda _size: None),
        batches=SimpleNamespace(decide=decide),
        exchange=SimpleNamespace(client=lambda *_: "", finish=lambda *_: None),
    )
    watch: Any = SimpleNamespace(begin=lambda _call: None, end=lambda _call: None)
    decode: Any = None
    method = Calls(api, 2, watch).decision("/Service/Method", decode).unary_unary
    assert method(b"first", CONTEXT) == b"first"
    came = len(clients)
    while len(clients) < CALLS:
        time.sleep(0.01)
    for client in clients:
        client.join()
    assert came < CALLS
