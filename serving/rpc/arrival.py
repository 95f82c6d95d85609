"""A time limit for a call's message: the call holds a thread while it waits for the message."""

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc


class ArrivalLimit(grpc.ServerInterceptor):  # type: ignore[misc]  # grpcio has no stubs
    """Cancels calls whose message does not arrive in time.

    grpcio waits for the message of a unary call for as long as the connection lasts. So unary
    requests are handled as streams, whose first message is awaited here; on the wire both are the
    same.
    """

    def __init__(self, seconds: float) -> None:
        """Allow a message so many seconds to arrive."""
        self._seconds = seconds
        self._handlers: dict[str, Any] = {}  # by method
        self._deadlines: dict[Any, float] = {}  # of waiting calls, by context

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call, with the limit if the call takes a single message."""
        handler = self._handlers.get(details.method)
        if handler is None:
            handler = continuation(details)
            if handler is None:
                return None  # no such method
            if not handler.request_streaming:
                handler = self._limited(handler)
            self._handlers[details.method] = handler
        return handler

    def cancel_overdue(self) -> None:
        """Cancel the calls that have waited for too long."""
        now = time.monotonic()
        for context, deadline in list(self._deadlines.items()):
            if deadline < now:
                context.cancel()

    def _limited(self, handler: Any) -> Any:
        behavior = handler.unary_stream if handler.response_streaming else handler.unary_unary

        # `wraps` copies the attributes that tell grpcio how to run the behavior.
        @functools.wraps(behavior)
        def handle(messages: Iterator[Any], context: Any, *more: Any) -> Any:
            return behavior(self._first(messages, context), context, *more)

        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
        )
        return make(handle, handler.request_deserializer, handler.response_serializer)

    def _first(self, messages: Iterator[Any], context: Any) -> Any:
        self._deadlines[context] = time.monotonic() + self._seconds
        try:
            return next(messages)
        except StopIteration:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "the call has no message")
        finally:
            del self._deadlines[context]
