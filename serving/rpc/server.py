"""The gRPC server of a worker: an event loop in a thread of its own."""

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc

from serving.api.app import Api
from serving.api.oip.inference import Inference
from serving.api.tfserving.models import ServingModels
from serving.errors import ProblemError
from serving.rpc import oip, tfserving
from serving.rpc.calls import Calls, Method, Watch
from serving.rpc.health import add_health_and_reflection
from serving.settings import Settings

logger = logging.getLogger(__name__)

# Of a worker; more are answered RESOURCE_EXHAUSTED at once. As many as it has connections of HTTP.
MAX_CALLS = 900
SERVICES = (oip.SERVICE, tfserving.PREDICTION_SERVICE, tfserving.MODEL_SERVICE)


class RpcServer:
    """Answers gRPC in a process that has not been forked since, and is not forked after.

    Every worker listens on the same address (`SO_REUSEPORT`), and the kernel chooses the worker of
    each new connection.
    """

    def __init__(
        self, api: Api, settings: Settings, threads: ThreadPoolExecutor, watch: Watch
    ) -> None:
        self._api = api
        self._settings = settings
        self._calls = Calls(api, threads, settings.max_in_flight, watch)
        self._loop = asyncio.new_event_loop()
        self._has_started = threading.Event()
        self._grace: asyncio.Future[float] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="grpc", daemon=True)
        self._error: Exception | None = None

    def start(self, address: str) -> None:
        """Listen.

        Args:
            address: of an IP address and a port, such as 127.0.0.1:8001 and [::1]:8001.

        Raises:
            RuntimeError: the address cannot be taken.
        """
        self._address = address
        self._thread.start()
        self._has_started.wait()
        if self._error is not None:
            raise RuntimeError(str(self._error)) from self._error

    def stop(self, grace: float) -> None:
        """Take no more calls; those in flight may take `grace` seconds. Returns at once."""
        self._loop.call_soon_threadsafe(self._grace.set_result, grace)

    def is_running(self) -> bool:
        """Whether a call is in flight, or more may come."""
        return self._thread.is_alive()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except Exception as error:
            if self._has_started.is_set():
                logger.exception("gRPC ended")
            self._error = error
        finally:
            self._has_started.set()

    async def _serve(self) -> None:
        options = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", self._settings.max_body_bytes),
            # Only messages as they are: the library would unpack one beyond any limit.
            ("grpc.compression_enabled_algorithms_bitset", 1),
        ]
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_CALLS)
        self._add_services(server)
        health = add_health_and_reflection(server, SERVICES, self._is_ready, self._calls)
        server.add_insecure_port(self._address)
        await server.start()
        self._has_started.set()
        watching = self._loop.create_task(health.watch())
        await server.stop(await self._grace)
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching

    def _add_services(self, server: grpc.aio.Server) -> None:
        repository, max_rows = self._api.repository, self._settings.max_rows
        models = ServingModels(repository)
        infer = oip.ModelInfer(Inference(repository, max_rows))
        predict = tfserving.Predict(repository, max_rows)
        decisions = {
            oip.SERVICE: {"ModelInfer": infer.decode},
            tfserving.PREDICTION_SERVICE: {"Predict": predict.decode},
            tfserving.MODEL_SERVICE: {},
        }
        others: dict[str, dict[str, Method]] = {
            oip.SERVICE: oip.other_methods(self._api.models, self._is_ready),
            tfserving.PREDICTION_SERVICE: tfserving.prediction_methods(models),
            tfserving.MODEL_SERVICE: tfserving.model_methods(models),
        }
        for service in SERVICES:
            path = partial("/{}/{}".format, service)
            handlers = {
                name: self._calls.decision(path(name), decode)
                for name, decode in decisions[service].items()
            }
            for name, method in others[service].items():
                handlers[name] = self._calls.other(path(name), method)
            generic = grpc.method_handlers_generic_handler(service, handlers)
            server.add_generic_rpc_handlers([generic])

    def _is_ready(self) -> bool:
        """Whether the default model is served, and will be."""
        if self._api.exchange.is_ending:
            return False
        try:
            self._api.models.require_ready()
        except ProblemError:
            return False
        return True
