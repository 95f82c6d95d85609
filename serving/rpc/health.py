"""`grpc.health.v1`, which reports HTTP's readiness for every service; reflection, with a key."""

import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from serving.rpc.calls import Calls
from serving.rpc.streams import Streams

# Streams of reflection: each holds one of the threads that handle calls.
_MAX_STREAMS = 4
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health.HealthServicer):
    """grpcio's health service, with the readiness of the policy as its status."""

    def __init__(
        self, services: Sequence[str], is_ready: Callable[[], bool], streams: Streams
    ) -> None:
        super().__init__()
        self._services = ("", *services)
        self._is_ready = is_ready
        self._streams = streams
        self._look_lock = threading.Lock()
        self._status: int | None = None

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # the name in the protocol
        """Answer the current status."""
        self.look()
        return super().Check(request, context)

    def List(self, _request: Any, _context: Any) -> Any:  # noqa: N802  # the name in the protocol
        """Answer the current status of every service."""
        self.look()
        status = health_pb2.HealthCheckResponse(status=self._status)
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(self._services, status))

    def Watch(  # noqa: N802  # the name in the protocol
        self, request: Any, context: Any, send_response_callback: Any = None
    ) -> Any:
        """Answer the current status, and each change."""
        self._streams.enter(context)
        return super().Watch(request, context, send_response_callback)

    def look(self) -> None:
        """Update the status, and send a change to all clients that watch."""
        with self._look_lock:
            status = _SERVING if self._is_ready() else _NOT_SERVING
            if status != self._status:
                self._status = status
                for service in self._services:
                    self.set(service, status)


class Reflection(reflection.ReflectionServicer):
    """grpcio's reflection service, for clients with a valid key if keys are set."""

    def __init__(self, services: Sequence[str], calls: Calls, streams: Streams) -> None:
        super().__init__(services)
        self._calls = calls
        self._streams = streams

    def ServerReflectionInfo(  # noqa: N802  # the name in the protocol
        self, request_iterator: Any, context: Any
    ) -> Any:
        """Describe the services."""
        self._calls.require_key(context)
        self._streams.enter(context)
        return super().ServerReflectionInfo(request_iterator, context)


def add_health_and_reflection(
    server: Any, services: Sequence[str], is_ready: Callable[[], bool], calls: Calls
) -> tuple[Health, list[Streams]]:
    """Add both to a server; the caller calls `look` now and then, and ends the streams."""
    # grpcio holds no thread for a client that watches.
    watching, describing = Streams(math.inf), Streams(_MAX_STREAMS)
    own = Health(services, is_ready, watching)
    health_pb2_grpc.add_HealthServicer_to_server(own, server)
    every = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    described = Reflection(every, calls, describing)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(described, server)
    return own, [watching, describing]
