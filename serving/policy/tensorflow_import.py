"""How TensorFlow is imported: late, quietly, and with the kernels that the numbers need."""

import gc
import importlib
import os
import sys

_POLICY = "serving.policy.savedmodel"
# Whole blocks of rows give the same numbers in every batch only with these kernels, which
# TensorFlow chooses by itself on some processors only, when it is imported.
_KERNELS = "TF_ENABLE_ONEDNN_OPTS"


def import_tensorflow() -> None:
    """Import TensorFlow, once, without the lines that it prints about itself while it loads.

    Raises:
        RuntimeError: it was imported before, maybe with other kernels.
    """
    if "tensorflow" in sys.modules and os.environ.get(_KERNELS) != "1":
        raise RuntimeError(f"TensorFlow was imported before {_KERNELS} was set to 1")
    if _POLICY in sys.modules:
        return
    os.environ[_KERNELS] = "1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # No Keras is used: naming the legacy one, which is not installed, spares its import.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    standard_error = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    # Collecting garbage again and again is a third of the import, and there is none.
    gc.disable()
    try:
        importlib.import_module(_POLICY)
    finally:
        gc.enable()
        os.dup2(standard_error, 2)
        os.close(standard_error)
    # What was imported stays, and a worker that never looks through it shares its memory.
    gc.freeze()
