"""The gRPC server of a worker, in grpcio's own threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc

from serving.api.app import Api
from serving.api.oip.inference import Inference
from serving.api.tfserving.models import ServingModels
from serving.errors import ProblemError
from serving.rpc import THREADS, oip, tfserving
from serving.rpc.arrival import ArrivalLimit
from serving.rpc.calls import Calls, Method, Watch
from serving.rpc.health import add_health_and_reflection
from serving.settings import Settings

# Per worker, as many as HTTP connections; further calls get RESOURCE_EXHAUSTED at once.
MAX_CALLS = 900
_SECONDS = 0.2  # between checks of the health and of calls that wait for their message
SERVICES = (oip.SERVICE, tfserving.PREDICTION_SERVICE, tfserving.MODEL_SERVICE)


class RpcServer:
    """Answers gRPC. Create it after the fork: grpcio must not be forked.

    Every worker listens on the same address (`SO_REUSEPORT`), and the kernel chooses the worker of
    each new connection.
    """

    def __init__(self, api: Api, settings: Settings, watch: Watch) -> None:
        self._api = api
        self._has_ended: threading.Event | None = None
        options = [
            ("grpc.so_reuseport", 1),
            ("grpc.max_receive_message_length", settings.max_body_bytes),
        ]
        self._arrival = ArrivalLimit(settings.client_timeout)
        self._server = grpc.server(
            ThreadPoolExecutor(THREADS, "grpc"),
            interceptors=[self._arrival],
            options=options,
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        calls = Calls(api, settings.max_in_flight, watch)
        self._add_services(calls, settings.max_rows)
        self._health, self._streams = add_health_and_reflection(
            self._server, SERVICES, self._is_ready, calls
        )

    def start(self, address: str) -> None:
        """Listen.

        Args:
            address: an IP address and a port, such as 127.0.0.1:8001 or [::1]:8001.

        Raises:
            RuntimeError: the address cannot be taken.
        """
        self._server.add_insecure_port(address)
        self._server.start()
        threading.Thread(target=self._look_after, name="gRPC", daemon=True).start()

    def stop(self, grace: float) -> None:
        """Take no more calls; those in flight have `grace` seconds, but streams end now.

        Returns at once.
        """
        self._has_ended = self._server.stop(grace)
        for streams in self._streams:
            streams.end()

    def is_running(self) -> bool:
        """Whether a call is in flight, or more may come."""
        return self._has_ended is None or not self._has_ended.is_set()

    def _look_after(self) -> None:
        """Update the health, and cancel calls whose messages do not arrive in time."""
        while self.is_running():
            self._health.look()
            self._arrival.cancel_overdue()
            time.sleep(_SECONDS)

    def _add_services(self, calls: Calls, max_rows: int) -> None:
        repository = self._api.repository
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
                name: calls.decision(path(name), decode)
                for name, decode in decisions[service].items()
            }
            for name, method in others[service].items():
                handlers[name] = calls.other(path(name), method)
            generic = grpc.method_handlers_generic_handler(service, handlers)
            self._server.add_generic_rpc_handlers([generic])

    def _is_ready(self) -> bool:
        """Whether the default model is served, and the service is not shutting down."""
        if self._api.exchange.is_ending:
            return False
        try:
            self._api.models.require_ready()
        except ProblemError:
            return False
        return True
