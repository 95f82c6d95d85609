"""The Flask application for a WSGI server of others: `gunicorn 'tests.wsgi_app:create()'`."""

import os
from pathlib import Path

from flask import Flask

from serving.api.keys import read_keys
from serving.policy.tensorflow_import import import_tensorflow
from serving.registry.trial import Trials
from serving.settings import Settings

MODELS = "WSGI_APP_MODELS"


def create() -> Flask:
    """An application that serves the models of the folder that the environment names."""
    trials = Trials()
    import_tensorflow()  # before what imports it
    from serving.api.app import create_api
    from serving.metrics import Metrics
    from serving.registry.repository import Repository

    settings, metrics = Settings(models=Path(os.environ[MODELS])), Metrics()
    repository = Repository(settings, metrics, trials)
    repository.refresh()  # ready before the first request
    repository.start()
    return create_api(settings, repository, metrics, read_keys(None)).flask
