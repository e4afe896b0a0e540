"""Import the library transformers, such that it fetches nothing and shows no progress of its own."""

import os
import sys
import warnings
from importlib import import_module
from types import ModuleType

from batchcls.building.library_errors import FAILURES
from batchcls.errors import BatchclsError

_SETTINGS = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
"""Environment variables that the libraries of Hugging Face read when they are imported."""


def transformers_library() -> ModuleType:
    """The module ``transformers``.

    Raises:
        BatchclsError: If it is not installed.
    """
    before = {name: os.environ.get(name) for name in _SETTINGS}
    if "transformers" not in sys.modules:
        os.environ.update(_SETTINGS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers = import_module("transformers")
            import_module("transformers.models.auto.modeling_auto")
    except ImportError as error:
        raise BatchclsError(
            f"building a folder of transformers needs {error.name}, which is not installed; "
            "run: pip install 'batchcls[transformers]'"
        ) from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def library_failures() -> tuple[type[Exception], ...]:
    """Exceptions that transformers raises for configurations that make no sense, once it is imported."""
    errors = import_module("huggingface_hub.errors")
    return (*FAILURES, errors.StrictDataclassError)
