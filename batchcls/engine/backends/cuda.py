"""The part of CUDA that the TensorRT backend needs, through cuda-python: memory, streams and graphs."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import runtime

from batchcls.errors import DeviceMemoryError, EngineError
from batchcls.records import DevicePixels, Pixels


def use_gpu(number: int) -> None:
    """Make GPU ``number`` the one that the calling thread works on."""
    _checked(runtime.cudaSetDevice(number))


def free_bytes() -> int:
    """Free memory of the GPU that the calling thread works on."""
    free: int = _checked(runtime.cudaMemGetInfo())[0]
    return free


class DeviceMemory:
    """``size`` bytes of GPU memory, until `close`.

    Raises:
        DeviceMemoryError: If the GPU has less free memory.
    """

    def __init__(self, size: int) -> None:
        self.address = int(_checked(runtime.cudaMalloc(size)))

    def close(self) -> None:
        _checked(runtime.cudaFree(self.address))


class PinnedMemory:
    """``size`` bytes of host memory that the GPU can read and write directly, until `close`."""

    def __init__(self, size: int) -> None:
        self.address = int(_checked(runtime.cudaHostAlloc(size, runtime.cudaHostAllocDefault)))
        content = (ctypes.c_uint8 * size).from_address(self.address)
        self.content: npt.NDArray[np.uint8] = np.ctypeslib.as_array(content)

    def close(self) -> None:
        _checked(runtime.cudaFreeHost(self.address))


class Stream:
    """A queue of work for the GPU, done in the order in which the work is given, until `close`."""

    def __init__(self) -> None:
        self.handle: Any = _checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy ``size`` bytes between two addresses, each on the host or on the GPU; return before the copy is done."""
        _checked(runtime.cudaMemcpyAsync(to, source, size, runtime.cudaMemcpyKind.cudaMemcpyDefault, self.handle))

    def copy_pixels(self, pixels: Pixels | DevicePixels, to: DeviceMemory, through: PinnedMemory) -> None:
        """Copy a batch to ``to``: from the host through pinned memory, or within the GPU."""
        if isinstance(pixels, DevicePixels):
            self.copy(to.address, pixels.address, pixels.nbytes)
        else:
            np.copyto(through.content[: pixels.nbytes].reshape(pixels.shape), pixels)
            self.copy(to.address, through.address, pixels.nbytes)

    def wait(self) -> None:
        """Wait until all work given so far is done."""
        _checked(runtime.cudaStreamSynchronize(self.handle))

    def close(self) -> None:
        _checked(runtime.cudaStreamDestroy(self.handle))


class Graph:
    """The work that calling ``work`` gives to ``stream``, captured to be launched at once, until `close`.

    Raises:
        EngineError: If some of the work cannot be captured.
    """

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        self._stream = stream
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(runtime.cudaStreamBeginCapture(stream.handle, mode))
        try:
            work()
        except BaseException:
            runtime.cudaStreamEndCapture(stream.handle)  # this call fails as well, with less of a reason
            raise
        recorded = _checked(runtime.cudaStreamEndCapture(stream.handle))
        self._ready = _checked(runtime.cudaGraphInstantiate(recorded, 0))
        _checked(runtime.cudaGraphDestroy(recorded))

    def launch(self) -> None:
        _checked(runtime.cudaGraphLaunch(self._ready, self._stream.handle))

    def close(self) -> None:
        _checked(runtime.cudaGraphExecDestroy(self._ready))


def _checked(result: tuple[Any, ...]) -> Any:
    """The values that a call of the CUDA runtime returns behind its error code.

    Raises:
        DeviceMemoryError: If the call failed for want of memory.
        EngineError: If the call failed otherwise.
    """
    error, *values = result
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        raise DeviceMemoryError("the GPU has not enough free memory")
    if error != runtime.cudaError_t.cudaSuccess:
        reason = runtime.cudaGetErrorString(error)[1].decode(errors="replace")
        raise EngineError(f"CUDA failed: {reason} ({error.name}); see the GPU's state with: nvidia-smi")
    return values[0] if len(values) == 1 else tuple(values)
