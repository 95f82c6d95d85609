"""How TensorFlow is imported: late, quietly, and with the kernels that the numbers need."""

import gc
import importlib
import os
import sys

_POLICY = "serving.policy.savedmodel"
# Only with these kernels do whole blocks of rows give the same numbers in every batch. TensorFlow
# chooses its kernels at import, and these by default on some processors only.
_KERNELS = "TF_ENABLE_ONEDNN_OPTS"


def import_tensorflow() -> None:
    """Import TensorFlow once, without the messages that it prints while it loads.

    Raises:
        RuntimeError: it was imported before, perhaps with other kernels.
    """
    if "tensorflow" in sys.modules and os.environ.get(_KERNELS) != "1":
        raise RuntimeError(f"TensorFlow was imported before {_KERNELS} was set to 1")
    if _POLICY in sys.modules:
        return
    os.environ[_KERNELS] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Keras is not used: selecting the legacy one, which is not installed, saves the import.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    standard_error = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    # Repeated garbage collection takes a third of the import's time, and finds nothing.
    gc.disable()
    try:
        importlib.import_module(_POLICY)
    finally:
        gc.enable()
        os.dup2(standard_error, 2)
        os.close(standard_error)
    # Exempt what was imported from collection: workers then keep sharing its memory pages.
    gc.freeze()
