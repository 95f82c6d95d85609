"""Environment variables that configure the libraries, to be set before these are imported."""

import os

VARIABLES = {
    # Small matrices gain little from threads, which would busy-wait for each other on cores that
    # other processes need.
    "OPENBLAS_NUM_THREADS": "1",
    # We use no Keras: choosing the legacy one, which is not installed, skips the import of Keras 3,
    # a fifth of TensorFlow's start-up.
    "TF_USE_LEGACY_KERAS": "1",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    # No banners and notices.
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "SDL_VIDEODRIVER": "dummy",
}


def configure() -> None:
    """Set the variables that the user has not set."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
