"""Keep what TensorRT for RTX compiles for a plan in a file beside it, so that a GPU compiles a plan once."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batchcls.engine.backends.tensorrt_api import tensorrt_module
from batchcls.engine.plan_sidecar import KERNELS_ENDING, PLANS, Target
from batchcls.errors import OutputError
from batchcls.storage.owned_folder import OwnedFolder
from batchcls.storage.regular_file import open_regular, read_up_to

if TYPE_CHECKING:
    import tensorrt_rtx

_LARGEST_BYTES = 1 << 30

logger = logging.getLogger("batchcls.tensorrt")


@dataclass(frozen=True, slots=True)
class KernelFile:
    """The file in an engine folder with the kernels that were compiled for a plan on one kind of machine.

    Like the plan it is a program, and no safer than the folder. Its first line says which plan, GPU, driver and
    TensorRT it belongs to, and gives the digest of the rest, so that TensorRT sees nothing stale or damaged.
    """

    folder: Path
    """The engine folder."""
    plan_sha256: str
    here: Target
    """This machine, with its GPU."""

    @property
    def path(self) -> Path:
        """Path of the file, which is named as a plan for this machine's GPU is."""
        return self.folder / PLANS / f"{self.here.stem}{KERNELS_ENDING}"

    def read(self) -> bytes:
        """The kernels, as TensorRT serialized them; empty if there are none for this plan and machine."""
        try:
            stream, status = open_regular(self.path)
            with stream:
                content = read_up_to(stream, min(status.st_size, _LARGEST_BYTES))
        except (OSError, ValueError):
            return b""
        heading, _, kernels = content.partition(b"\n")
        return kernels if kernels and heading == self._heading(kernels) else b""

    def write(self, kernels: bytes) -> None:
        """Write the file whole; a folder that does not take it, such as a read-only one, is logged and no error."""
        try:
            with OwnedFolder(self.path.parent) as plans:
                plans.write(self.path.name, self._heading(kernels) + b"\n" + kernels)
        except (OSError, OutputError) as error:
            logger.info("the kernels compiled for %s are not kept: %s", self.here.gpu, error)

    def _heading(self, kernels: bytes) -> bytes:
        digest = hashlib.sha256(kernels).hexdigest()
        values = {"plan_sha256": self.plan_sha256, **asdict(self.here), "kernels_sha256": digest}
        return json.dumps(values).encode()


class RuntimeCache:
    """Makes execution contexts of a plan with kernels from a file, or with new ones, which `save` writes there.

    TensorRT checks the kernels against its version, the GPU and the driver once more, and compiles again if they do not
    fit. Its configuration and its cache have to outlive the contexts, so this is to be closed after them.

    Source: https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/work-with-runtime-cache.html
    """

    def __init__(self, engine: "tensorrt_rtx.ICudaEngine", file: KernelFile) -> None:
        rtx = tensorrt_module("tensorrt_rtx")
        self._engine: tensorrt_rtx.ICudaEngine | None = engine
        self._file = file
        self._config: tensorrt_rtx.IRuntimeConfig | None = engine.create_runtime_config()
        self._config.set_execution_context_allocation_strategy(rtx.ExecutionContextAllocationStrategy.USER_MANAGED)
        self._cache: tensorrt_rtx.IRuntimeCache | None = self._config.create_runtime_cache()
        kernels = file.read()
        self._is_complete = bool(kernels) and self._cache.deserialize(kernels)
        self._config.set_runtime_cache(self._cache)

    def context(self) -> "tensorrt_rtx.IExecutionContext | None":
        """A new context, whose scratch memory the caller provides; None if TensorRT cannot make one."""
        if self._engine is None or self._config is None:
            return None
        return self._engine.create_execution_context(self._config)

    def save(self) -> None:
        """Write the kernels of the contexts so far to the file, unless they came from there."""
        if self._is_complete or self._cache is None:
            return
        kernels = self._cache.serialize()
        if kernels is not None and kernels.nbytes:
            self._file.write(bytes(kernels))

    def close(self) -> None:
        """Drop TensorRT's objects."""
        self._config = self._cache = self._engine = None
