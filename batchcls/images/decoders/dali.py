"""Decode with NVIDIA DALI, a group of files at a time: on the CPU, or on a GPU up to the engine's own pixels."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline, fn, types

from batchcls import machine
from batchcls.errors import DecoderError
from batchcls.images.decoders.batching import CPU_GROUP_PIXELS, BatchingDecoder
from batchcls.images.decoders.pillow import PillowGroup, total_cost_bytes
from batchcls.images.decoders.read_ahead import Encoded, ReadOptions
from batchcls.images.decoders.resample import exactly
from batchcls.memory import Memory
from batchcls.records import DevicePixels, Pixels, Preprocess

_GROUP = 16
"""Files decoded at a time on the CPU: what they decode to is still in the caches when it is resampled."""
_LARGEST_PIXELS = 1 << 21
"""On the CPU, larger JPEGs are Pillow's, to the same pixels: DALI keeps what an image took for the next one."""
_COPY_BYTES = 3
"""A pixel, of what DALI hands over."""
_LANES = 2
"""Groups on their way at one time on a GPU: one is parsed by the CPU while the other is decoded."""
_MOST_REFUSED = 100
_SHOWN_REASON = 400
_REFUSALS = (RuntimeError, ValueError, IndexError, TypeError)
"""What DALI makes of its own exceptions."""
_OUT_OF_MEMORY = ("std::bad_alloc", "out of memory", "cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY")
_FILTERS = {
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
    "lanczos": types.INTERP_LANCZOS3,
}


def open(
    preprocess: Preprocess, *, batch_size: int, threads: int, read: ReadOptions, decode_bytes: int, device: str
) -> BatchingDecoder:
    """The decoder of `batchcls.images.decoders.open_decoder`."""
    # Where two pixels are equally near, DALI takes the other one.
    if device == "cpu" or preprocess.interpolation == "nearest":
        group: DaliGroup | GraphGroup = DaliGroup(preprocess, threads=threads)
    else:
        group = GraphGroup(preprocess, batch_size=batch_size, threads=threads, device=device)
    return BatchingDecoder(group, preprocess.size_px, batch_size=batch_size, read=read, decode_bytes=decode_bytes)


class DaliGroup:
    """DALI decodes plain JPEGs to Pillow's pixels, and Pillow resamples them and decodes the rest."""

    lanes = 1
    group_pixels = CPU_GROUP_PIXELS

    def __init__(self, preprocess: Preprocess, *, threads: int) -> None:
        self._preprocess = preprocess
        self._pillow = PillowGroup(preprocess, threads=threads)
        self._pipeline = graph(None, batch_size=_GROUP, threads=threads, device="cpu")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="resample")

    def part(self, item: Encoded) -> str:
        header = item.header
        small = header.width * header.height <= _LARGEST_PIXELS
        return "plain" if header.plain_jpeg and small else self._pillow.part(item)

    def cost_bytes(self, item: Encoded) -> int:
        copied = item.header.width * item.header.height * _COPY_BYTES if self.part(item) == "plain" else 0
        return total_cost_bytes(item, self._preprocess) + copied

    def __call__(self, group: Sequence[Encoded], memory: Memory) -> Pixels:
        if self.part(group[0]) != "plain":
            return self._pillow(group, memory)
        try:
            return self._whole(group, memory)
        except _REFUSALS:
            if len(group) > 1:
                raise
            return self._pillow(group, memory)

    def close(self) -> None:
        self._pool.shutdown()
        self._pillow.close()

    def _whole(self, group: Sequence[Encoded], memory: Memory) -> Pixels:
        pixels = np.empty((len(group), *self._preprocess.size_px, 3), np.uint8)
        start = 0
        for part, cost in self._parts(group, memory.size_bytes):
            with memory.lent(cost):
                (images,) = _run(self._pipeline, encoded=_bytes(part))
                decoded = [images.at(row) for row in range(len(images))]  # borrowed: the next run overwrites it
                pixels[start : start + len(part)] = list(self._pool.map(self._resampled, decoded))
            start += len(part)
        return pixels

    def _parts(self, group: Sequence[Encoded], most_bytes: int) -> Iterator[tuple[list[Encoded], int]]:
        """Files to decode at a time, and what that costs; one that costs more than ``most_bytes`` is alone."""
        part: list[Encoded] = []
        costs = 0
        for item in group:
            cost = self.cost_bytes(item)
            if part and (len(part) == _GROUP or costs + cost > most_bytes):
                yield part, costs
                part, costs = [], 0
            part.append(item)
            costs += cost
        yield part, costs

    def _resampled(self, image: Pixels) -> Pixels:
        return exactly(image, self._preprocess)


class GraphGroup:
    """DALI decodes plain JPEGs and resizes them, and the pixels stay on ``device``; the rest is Pillow's."""

    lanes = _LANES
    group_pixels = 256_000_000

    def __init__(self, preprocess: Preprocess, *, batch_size: int, threads: int, device: str) -> None:
        if device != "cpu" and not machine.has_nvjpeg():
            raise DecoderError(
                f"nvJPEG, with which DALI decodes on {device}, is not installed; run: pip install nvidia-nvjpeg, "
                "or decode on the CPU with --decoder turbo"
            )
        self._preprocess = preprocess
        self._device = device
        self._free: SimpleQueue[Pipeline] = SimpleQueue()
        for _ in range(_LANES):
            lane_threads = max(1, threads // _LANES)
            self._free.put(graph(preprocess, batch_size=batch_size, threads=lane_threads, device=device))
        self._pillow = PillowGroup(preprocess, threads=threads)
        self._refused = 0
        """Plain JPEGs in a row that Pillow decodes."""

    def part(self, item: Encoded) -> str:
        return "plain" if item.header.plain_jpeg else self._pillow.part(item)

    def cost_bytes(self, item: Encoded) -> int:
        return total_cost_bytes(item, self._preprocess)

    def __call__(self, group: Sequence[Encoded], memory: Memory) -> Pixels | DevicePixels:
        if not group[0].header.plain_jpeg:
            return self._pillow(group, memory)
        pipeline = self._free.get()
        try:
            with memory.lent(self._on_the_host(group)):
                pixels = self._run(pipeline, group)
        except (*_REFUSALS, MemoryError) as error:
            if len(group) > 1:
                raise
            return self._tried_again(group, error, memory)
        finally:
            self._free.put(pipeline)
        self._refused = 0
        return pixels

    def close(self) -> None:
        self._pillow.close()
        while not self._free.empty():
            self._free.get()

    def _run(self, pipeline: Pipeline, group: Sequence[Encoded]) -> Pixels | DevicePixels:
        boxes = np.array([self._preprocess.region(item.header.width, item.header.height) for item in group], np.float32)
        (images,) = _run(
            pipeline,
            encoded=_bytes(group),
            start=np.ascontiguousarray(boxes[:, [1, 0]]),
            end=np.ascontiguousarray(boxes[:, [3, 2]]),
        )
        if self._device == "cpu":
            return np.array(images.as_array())
        tensor = images.as_tensor()  # its memory is DALI's until the last one who knows it lets go
        return DevicePixels(tuple(tensor.shape()), tensor.data_ptr(), tensor)

    def _on_the_host(self, group: Sequence[Encoded]) -> int:
        """What of memory a group takes; on a GPU, what is parsed on the host is no larger than one channel of each."""
        costs = [self.cost_bytes(item) for item in group]
        if self._device == "cpu":
            return sum(costs)
        return max(max(costs), sum(item.header.width * item.header.height for item in group))

    def _tried_again(self, group: Sequence[Encoded], error: Exception, memory: Memory) -> Pixels:
        """What Pillow decodes of a file, so that a row does not depend on the device.

        Raises:
            DecoderError: If it is not the files that the GPU fails on.
        """
        pixels = self._pillow(group, memory)
        self._refused += 1
        if self._refused > _MOST_REFUSED:
            raise DecoderError(
                f"DALI refuses on {self._device} what Pillow decodes, {self._refused:,} files in a row: "
                f"{' '.join(str(error).split())[:_SHOWN_REASON]}; decode on the CPU with --decoder turbo, "
                "or free memory of the GPU"
            ) from error
        return pixels


def _bytes(group: Sequence[Encoded]) -> list[npt.NDArray[np.uint8]]:
    return [np.frombuffer(item.data, np.uint8) for item in group]


def _run(pipeline: Pipeline, **inputs: Any) -> Sequence[Any]:
    """The pipeline's outputs for one batch of each of its inputs.

    Raises:
        MemoryError: If DALI had not enough, on the host or on the GPU.
        RuntimeError, ValueError, IndexError, TypeError: If it could not decode some of the files.
    """
    try:
        outputs: Sequence[Any] = pipeline.run(**inputs)
    except RuntimeError as error:
        if any(sign in str(error) for sign in _OUT_OF_MEMORY):
            raise MemoryError(" ".join(str(error).split())[:_SHOWN_REASON]) from error
        raise
    return outputs


def graph(preprocess: Preprocess | None, *, batch_size: int, threads: int, device: str) -> Pipeline:
    """From ``encoded`` bytes to RGB, uint8 on ``device``.

    Args:
        preprocess: (N, H, W, 3), resized from the box between ``start`` and ``end``, each (row, column) in pixels.
            None: (H, W, 3) of each image, as it was stored.
        device: ``cpu``, or ``cuda:N``, where the GPU's JPEG engine, its cores and CPU threads decode together.
    """
    number = None if device == "cpu" else int(device.removeprefix("cuda:"))
    # Nothing is prefetched, so that an exception is of the files that were just handed over.
    pipeline = Pipeline(
        batch_size=batch_size, num_threads=threads, device_id=number, prefetch_queue_depth=1, exec_dynamic=True
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", device="cpu", no_copy=True)
        images = fn.decoders.image(
            encoded,
            device="cpu" if number is None else "mixed",
            output_type=types.RGB,
            adjust_orientation=False,  # as Pillow does, so that pixels are those of training
            jpeg_fancy_upsampling=True,  # likewise
            hw_decoder_load=1.0,  # a share would let an image's pixels depend on its batch: the two decoders differ
        )
        if preprocess is not None:
            start, end = (fn.external_source(name=name, device="cpu") for name in ("start", "end"))
            images = fn.resize(
                images,
                size=[float(side) for side in preprocess.size_px],
                roi_start=start,
                roi_end=end,
                interp_type=_FILTERS[preprocess.interpolation],
                antialias=True,
                subpixel_scale=False,
            )
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline
