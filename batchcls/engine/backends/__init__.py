"""What runs an engine: one module a runtime."""

from importlib import import_module
from pathlib import Path
from typing import Literal, cast

from batchcls.engine.base import Engine
from batchcls.engine.manifest import Manifest, checked_onnx
from batchcls.errors import EngineError

BackendName = Literal["openvino", "tensorrt", "torch", "null"]


def open_engine(
    folder: Path, *, backend: BackendName, device: str, threads: int, precision: str | None = None
) -> Engine:
    """The engine in ``folder``, compiled by ``backend`` for ``device`` and ready to infer.

    Args:
        device: ``cpu``, or ``cuda:N`` for GPU number N.
        threads: CPU threads that infer.
        precision: What to compute in, in the backend's own words; None: the fastest that the device has.

    Raises:
        EngineError: If the folder is no engine, its network is not the one that was verified, or the backend
            is not installed, cannot run it, or cannot use the device.
    """
    manifest = Manifest.read(folder)
    onnx = checked_onnx(folder, manifest)
    try:
        module = import_module(f"batchcls.engine.backends.{backend}")
    except ImportError as error:
        package = "'cuda-bindings>=13'" if backend == "tensorrt" else "'batchcls[build]'"
        raise EngineError(
            f"backend {backend!r} needs {error.name!r}, which is not installed; run: pip install {package}"
        ) from error
    return cast(Engine, module.open(manifest, onnx, device=device, threads=threads, precision=precision))
