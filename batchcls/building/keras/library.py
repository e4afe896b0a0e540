"""Import Keras with PyTorch as its backend, such that it neither reads nor writes settings of the user."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from batchcls.errors import BatchclsError, CheckpointError

_SETTINGS = {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": "cpu", "KERAS_HOME": os.devnull}
"""Environment variables that Keras reads when it is imported. No file can be made in the last one, so none is."""


def keras_library() -> ModuleType:
    """The module ``keras``, which computes by PyTorch.

    Raises:
        BatchclsError: If Keras is not installed.
        CheckpointError: If it was imported before, with another backend.
    """
    with _settings(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import_module("h5py")
            keras = import_module("keras")
        except ImportError as error:
            raise BatchclsError(
                f"building a Keras file needs {error.name}, which is not installed; run: pip install 'batchcls[keras]'"
            ) from error
    backend = keras.backend.backend()
    if backend != "torch":
        raise CheckpointError(
            f"Keras is in use with its backend {backend!r}; begin a new program with: export KERAS_BACKEND=torch"
        )
    return keras


@contextmanager
def _settings() -> Iterator[None]:
    """A context with the environment variables of `_SETTINGS`, in which Keras is imported."""
    if "keras" in sys.modules:
        yield
        return
    before = {name: os.environ.get(name) for name in (*_SETTINGS, "TF_FORCE_GPU_ALLOW_GROWTH")}
    os.environ.update(_SETTINGS)
    hidden = {name: None for name in ("matplotlib",) if name not in sys.modules}  # it would list the user's fonts
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
