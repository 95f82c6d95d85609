"""`grpc.health.v1`, for every service what readiness is over HTTP; and reflection, with a key."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from serving.rpc.calls import Calls

_SECONDS = 0.2  # between two looks for those who watch
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health.aio.HealthServicer):
    """The library's service, which asks whether the policy is ready."""

    def __init__(self, services: Sequence[str], is_ready: Callable[[], bool]) -> None:
        super().__init__()
        self._services = ("", *services)
        self._is_ready = is_ready
        self._status: int | None = None

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  # as it is called
        """Answer what is so now."""
        await self._look()
        return await super().Check(request, context)

    async def watch(self) -> None:
        """Look again and again, for ever."""
        while True:
            await self._look()
            await asyncio.sleep(_SECONDS)

    async def _look(self) -> None:
        status = _SERVING if self._is_ready() else _NOT_SERVING
        if status != self._status:
            self._status = status
            for service in self._services:
                await self.set(service, status)


class Reflection(reflection.aio.ReflectionServicer):
    """The library's service, for those who have a key if the service has keys."""

    def __init__(self, services: Sequence[str], calls: Calls) -> None:
        super().__init__(services)
        self._calls = calls

    async def ServerReflectionInfo(  # noqa: N802  # as it is called
        self, request_iterator: Any, context: Any
    ) -> Any:
        """Describe the services."""
        await self._calls.require_key(context)
        async for answer in super().ServerReflectionInfo(request_iterator, context):
            yield answer


def add_health_and_reflection(
    server: Any, services: Sequence[str], is_ready: Callable[[], bool], calls: Calls
) -> Health:
    """Add both to a server; the health has to be watched."""
    own = Health(services, is_ready)
    health_pb2_grpc.add_HealthServicer_to_server(own, server)
    every = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    described = Reflection(every, calls)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(described, server)
    return own
