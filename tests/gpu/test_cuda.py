"""CUDA's memory, streams and graphs, as the TensorRT backend uses them."""

from collections.abc import Iterator
from contextlib import ExitStack, closing

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")

from batchcls.engine.backends import cuda
from batchcls.errors import DeviceMemoryError, EngineError
from batchcls.records import DevicePixels

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def stack() -> Iterator[ExitStack]:
    """Closes what a test opens on the first GPU."""
    cuda.use_gpu(0)
    with ExitStack() as opened:
        yield opened


def test_pixels_come_back_from_the_gpu_as_they_were(stack: ExitStack) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 30, 20, 3), np.uint8)
    stream = stack.enter_context(closing(cuda.Stream()))
    there, beside = (stack.enter_context(closing(cuda.DeviceMemory(pixels.nbytes))) for _ in range(2))
    pinned, answer = (stack.enter_context(closing(cuda.PinnedMemory(pixels.nbytes))) for _ in range(2))
    answer.content[:] = 0
    stream.copy_pixels(pixels[:, ::-1], there, pinned)
    stream.copy_pixels(DevicePixels(pixels.shape, there.address, there), beside, pinned)
    stream.copy(answer.address, beside.address, pixels.nbytes)
    stream.wait()
    np.testing.assert_array_equal(answer.content.reshape(pixels.shape), pixels[:, ::-1])


def test_each_launch_of_a_graph_does_its_work_again(stack: ExitStack) -> None:
    stream = stack.enter_context(closing(cuda.Stream()))
    memory = stack.enter_context(closing(cuda.DeviceMemory(1000)))
    source, target = (stack.enter_context(closing(cuda.PinnedMemory(1000))) for _ in range(2))

    def there_and_back() -> None:
        stream.copy(memory.address, source.address, 1000)
        stream.copy(target.address, memory.address, 1000)

    target.content[:] = 0
    graph = stack.enter_context(closing(cuda.Graph(stream, there_and_back)))
    assert not target.content.any(), "recorded, and not done"
    for value in (7, 8):
        source.content[:] = value
        graph.launch()
        stream.wait()
        assert np.all(target.content == value)


def test_after_work_that_cannot_be_recorded_the_stream_goes_on(stack: ExitStack) -> None:
    stream = stack.enter_context(closing(cuda.Stream()))
    with pytest.raises(EngineError, match="CUDA failed"):
        cuda.Graph(stream, stream.wait)
    source, target = (stack.enter_context(closing(cuda.PinnedMemory(100))) for _ in range(2))
    source.content[:] = 5
    stream.copy(target.address, source.address, 100)
    stream.wait()
    assert np.all(target.content == 5)


def test_memory_that_is_not_there_is_refused_and_more_can_be_asked_for() -> None:
    with pytest.raises(DeviceMemoryError):
        cuda.DeviceMemory(1 << 50)
    cuda.DeviceMemory(1 << 20).close()
