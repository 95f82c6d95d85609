"""The Flask application: wiring only."""

from flask import Flask

from serving.api.act import act_blueprint
from serving.api.health import health_blueprint
from serving.api.hooks import register_hooks
from serving.api.keys import Keys
from serving.api.metrics import metrics_blueprint
from serving.api.models import models_blueprint
from serving.api.oip.routes import oip_blueprint
from serving.api.openapi.routes import docs_blueprint
from serving.api.pages import page_blueprint
from serving.api.tfserving.routes import tfserving_blueprint
from serving.errors import register_error_handlers
from serving.metrics import Metrics
from serving.registry.repository import Repository
from serving.settings import Settings


def create_app(settings: Settings, repository: Repository, metrics: Metrics, keys: Keys) -> Flask:
    """Build the application; `repository` is started by whoever runs it."""
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    register_error_handlers(app)
    register_hooks(app, settings, metrics, keys)
    app.register_blueprint(act_blueprint(repository, settings, metrics))
    app.register_blueprint(docs_blueprint(repository, settings))
    app.register_blueprint(health_blueprint(repository))
    app.register_blueprint(metrics_blueprint(metrics))
    app.register_blueprint(models_blueprint(repository))
    app.register_blueprint(oip_blueprint(repository, settings, metrics, keys_are_set=bool(keys)))
    app.register_blueprint(page_blueprint())
    app.register_blueprint(tfserving_blueprint(repository, settings, metrics))
    return app
