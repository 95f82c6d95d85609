"""The application: wiring only."""

from typing import NamedTuple

from flask import Flask

from serving.api.act import ActProtocol
from serving.api.batch import Batches
from serving.api.body import BodyReader
from serving.api.budget import Budget
from serving.api.decisions import DecisionRoutes
from serving.api.exchange import Exchange
from serving.api.feedback import feedback_blueprint
from serving.api.keys import Keys
from serving.api.oip.infer import InferProtocol
from serving.api.oip.models import InferenceModels
from serving.api.oip.routes import InferenceProtocolRoutes
from serving.api.openapi.routes import docs_blueprint
from serving.api.pages import page_blueprint
from serving.api.problems import register_error_handlers
from serving.api.reports import health_blueprint, models_blueprint
from serving.api.tfserving.predict import PredictProtocol
from serving.api.tfserving.routes import CONVERTERS, TensorFlowServingRoutes
from serving.metrics import Metrics
from serving.record.drift import Drift
from serving.record.log import DecisionLog
from serving.record.shadow import Shadows
from serving.registry.repository import Repository
from serving.service import DecisionService
from serving.settings import Settings


class Api(NamedTuple):
    """The application, which any WSGI server can run, and the parts that the worker calls."""

    flask: Flask
    decisions: DecisionRoutes
    batches: Batches
    models: InferenceModels
    repository: Repository
    exchange: Exchange
    budget: Budget
    shadows: Shadows
    metrics: Metrics


def create_api(
    settings: Settings,
    repository: Repository,
    metrics: Metrics,
    keys: Keys,
    log: DecisionLog | None = None,
) -> Api:
    """Build the application; the caller starts `repository` and closes `log`."""
    budget = Budget(8 * settings.max_body_bytes)
    bodies = BodyReader(settings, budget, repository.widest)
    exchange = Exchange(settings, metrics, keys)
    protocols = (
        ActProtocol(repository, bodies),
        InferProtocol(repository, bodies, settings.max_rows),
        PredictProtocol(repository, bodies, settings.max_rows),
    )
    table = {rule: protocol.decode for protocol in protocols for rule in protocol.rules}
    drift = Drift(metrics.statistics.arrays, repository)
    shadows = Shadows(repository, metrics)
    for collector in (drift, shadows):
        metrics.add_collector(collector)
    service = DecisionService(settings.max_rows, metrics, drift, shadows)
    batches = Batches(service, log)
    decisions = DecisionRoutes(table, batches, exchange, bodies)
    models = InferenceModels(repository, settings, metrics.statistics)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.merge_slashes = False  # merging would redirect to an absolute URL
    app.url_map.converters.update(CONVERTERS)
    register_error_handlers(app)
    exchange.register(app)
    decisions.register(app)
    app.register_blueprint(docs_blueprint(repository, settings, keys_are_set=bool(keys)))
    app.register_blueprint(health_blueprint(repository, metrics))
    app.register_blueprint(feedback_blueprint(log, bodies))
    app.register_blueprint(models_blueprint(repository, shadows))
    app.register_blueprint(InferenceProtocolRoutes(models, bodies).blueprint())
    app.register_blueprint(page_blueprint())
    app.register_blueprint(TensorFlowServingRoutes(repository, bodies).blueprint())
    return Api(app, decisions, batches, models, repository, exchange, budget, shadows, metrics)
