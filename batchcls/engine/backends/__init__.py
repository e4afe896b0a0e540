"""Open an engine by the name of its backend; each backend has a module of that name."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from batchcls.engine.base import Engine, EngineOptions
from batchcls.engine.manifest import Manifest, checked_onnx_path
from batchcls.errors import EngineError
from batchcls.networks.architecture_index import is_indexed

BackendName = Literal["openvino", "tensorrt", "torch", "onnxruntime", "null"]
_PACKAGES = {
    "openvino": "openvino",
    "tensorrt": "'cuda-bindings>=13'",
    "torch": "'batchcls[build]'",
    "onnxruntime": "'onnxruntime-gpu[cuda,cudnn]>=1.31', or on a CPU: pip install onnxruntime",
}
"""Packages to install where a backend's module cannot be imported, as pip takes it."""


def has_torch_network(folder: Path, manifest: Manifest) -> bool:
    """Whether PyTorch can run an engine: it makes the network again, by the name of its architecture and its weights.

    Raises:
        EngineError: If the network is not the one that the manifest was written for.
    """
    needed = ["torch", "onnx", *(["timm"] if manifest.architecture.startswith("timm/") else [])]
    if manifest.precision == "int8" or not is_indexed(manifest.architecture) or not all(map(find_spec, needed)):
        return False
    onnx_weights = import_module("batchcls.engine.backends.onnx_weights")
    return bool(onnx_weights.names_every_weight(checked_onnx_path(folder, manifest)))


def has_cuda_onnxruntime() -> bool:
    """Whether an ONNX Runtime with CUDA is installed."""
    if not find_spec("onnxruntime"):
        return False
    providers: list[str] = import_module("onnxruntime").get_available_providers()
    return "CUDAExecutionProvider" in providers


def open_engine(folder: Path, manifest: Manifest, *, backend: BackendName, **options: Any) -> Engine:
    """The engine in ``folder``, compiled by ``backend`` and ready to infer.

    Args:
        manifest: The folder's manifest, as `Manifest.read` returns it; the folder's own is not read again.
        options: See `EngineOptions`.

    Raises:
        EngineError: If the network is not the one that the manifest was written for, or the backend is not installed,
            cannot run the network, or cannot use the device.
    """
    onnx = checked_onnx_path(folder, manifest)
    try:
        module = import_module(f"batchcls.engine.backends.{backend}")
    except ImportError as error:
        raise EngineError(
            f"backend {backend!r} needs {error.name!r}, which is not installed; "
            f"run: pip install {_PACKAGES.get(backend, 'batchcls')}"
        ) from error
    return cast(Engine, module.open_engine(manifest, onnx, EngineOptions(**options)))
