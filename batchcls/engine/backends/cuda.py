"""The little of CUDA that a backend needs, through cuda-python: memory, a stream, and work captured on it."""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from cuda.bindings import runtime

from batchcls.errors import DeviceMemoryError, EngineError
from batchcls.records import DevicePixels, Pixels


def use(number: int) -> None:
    """Make GPU ``number`` the one that this thread works on."""
    _checked(runtime.cudaSetDevice(number))


def free_bytes() -> int:
    """Memory that nobody has taken, of the GPU that this thread works on."""
    free: int = _checked(runtime.cudaMemGetInfo())[0]
    return free


class DeviceMemory:
    """Some bytes on the GPU, until `close`.

    Raises:
        DeviceMemoryError: If there are not so many.
    """

    def __init__(self, size: int) -> None:
        self.address = int(_checked(runtime.cudaMalloc(size)))

    def close(self) -> None:
        _checked(runtime.cudaFree(self.address))


class PinnedMemory:
    """Some bytes on the host that the GPU can reach by itself, until `close`."""

    def __init__(self, size: int) -> None:
        self.address = int(_checked(runtime.cudaHostAlloc(size, runtime.cudaHostAllocDefault)))
        content = (ctypes.c_uint8 * size).from_address(self.address)
        self.content: npt.NDArray[np.uint8] = np.ctypeslib.as_array(content)

    def close(self) -> None:
        _checked(runtime.cudaFreeHost(self.address))


class Stream:
    """Work for the GPU that is done in the order in which it is given, until `close`."""

    def __init__(self) -> None:
        self.handle: Any = _checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy ``size`` bytes between two addresses, each on the host or on the GPU; it returns before it is done."""
        _checked(runtime.cudaMemcpyAsync(to, source, size, runtime.cudaMemcpyKind.cudaMemcpyDefault, self.handle))

    def copy_pixels(self, pixels: Pixels | DevicePixels, to: DeviceMemory, through: PinnedMemory) -> None:
        """Copy a batch to the GPU through pinned memory, or within the GPU if it is there already."""
        if isinstance(pixels, DevicePixels):
            self.copy(to.address, pixels.address, pixels.nbytes)
        else:
            np.copyto(through.content[: pixels.nbytes].reshape(pixels.shape), pixels)
            self.copy(to.address, through.address, pixels.nbytes)

    def wait(self) -> None:
        """Return once everything given so far is done."""
        _checked(runtime.cudaStreamSynchronize(self.handle))

    def close(self) -> None:
        _checked(runtime.cudaStreamDestroy(self.handle))


class Graph:
    """What ``work`` gives to ``stream``, recorded to be started all at once, until `close`.

    Raises:
        EngineError: If some of it cannot be recorded.
    """

    def __init__(self, stream: Stream, work: Callable[[], None]) -> None:
        self._stream = stream
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(runtime.cudaStreamBeginCapture(stream.handle, mode))
        try:
            work()
        except BaseException:
            runtime.cudaStreamEndCapture(stream.handle)  # it fails as well, and knows less of the reason
            raise
        recorded = _checked(runtime.cudaStreamEndCapture(stream.handle))
        self._ready = _checked(runtime.cudaGraphInstantiate(recorded, 0))
        _checked(runtime.cudaGraphDestroy(recorded))

    def launch(self) -> None:
        _checked(runtime.cudaGraphLaunch(self._ready, self._stream.handle))

    def close(self) -> None:
        _checked(runtime.cudaGraphExecDestroy(self._ready))


def _checked(result: tuple[Any, ...]) -> Any:
    """What a call of the CUDA runtime answers after its error code.

    Raises:
        DeviceMemoryError: If there is not enough memory.
        EngineError: If it failed otherwise.
    """
    error, *values = result
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        raise DeviceMemoryError("the GPU has not enough free memory")
    if error != runtime.cudaError_t.cudaSuccess:
        reason = runtime.cudaGetErrorString(error)[1].decode(errors="replace")
        raise EngineError(f"CUDA failed: {reason} ({error.name}); run: batchcls info")
    return values[0] if len(values) == 1 else tuple(values)
