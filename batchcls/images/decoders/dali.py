"""Decode with NVIDIA DALI, a group of files at a time: on the CPU, or on a GPU, where the resized pixels stay."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
from nvidia.dali import Pipeline

from batchcls import machine
from batchcls.errors import DecoderError, DeviceMemoryError
from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.decoders.batching import CPU_GROUP_PIXELS, BatchingDecoder
from batchcls.images.decoders.dali_graph import DECODE_OPERATOR, MOST_ERROR_CHARACTERS, build_graph, run_graph
from batchcls.images.decoders.encoded import Encoded
from batchcls.images.decoders.pillow import decode_exactly
from batchcls.images.decoders.resample import resample_exactly
from batchcls.images.decoders.threaded import DecodeCost, ThreadedGroup
from batchcls.networks.preprocess import Preprocess
from batchcls.records import DevicePixels, Pixels
from batchcls.storage.memory import Memory

_GROUP = 16
"""Number of files decoded at one time on the CPU, so that their pixels are still in the caches when resampled."""
_LARGEST_PIXELS = 1 << 21
"""Largest JPEGs that DALI decodes on the CPU, for it keeps its memory; Pillow decodes larger ones to equal pixels."""
_COPY_BYTES = 3
"""Bytes per pixel of the images that DALI returns."""
_LANES = 2
"""Number of groups on their way to a GPU: one is parsed by the CPU while the other is decoded."""
_MOST_REFUSED = 100
"""Number of plain JPEGs in a row that DALI may refuse before the run ends."""
_REFUSALS = (RuntimeError, ValueError, IndexError, TypeError)
"""Exceptions that DALI raises for files that it cannot decode."""


def open_decoder(preprocess: Preprocess, options: DecoderOptions) -> BatchingDecoder:
    """The decoder that `batchcls.images.decoders.open_decoder` calls ``dali``."""
    # If two pixels are equally near, DALI and Pillow choose different ones.
    if options.device == "cpu" or preprocess.interpolation == "nearest":
        group: DaliGroup | GraphGroup = DaliGroup(preprocess, threads=options.threads)
    else:
        group = GraphGroup(preprocess, batch_size=options.batch_size, threads=options.threads, device=options.device)
    return BatchingDecoder(group, preprocess.size_px, options)


class DaliGroup:
    """Decodes plain JPEGs with DALI to Pillow's pixels; Pillow resamples them, and decodes all other files."""

    lanes = 1
    group_pixels = CPU_GROUP_PIXELS

    def __init__(self, preprocess: Preprocess, *, threads: int) -> None:
        self._preprocess = preprocess
        self._cost_bytes = DecodeCost(preprocess)
        self._pillow = ThreadedGroup(preprocess, decode_exactly, threads=threads)
        self._pipeline = build_graph(None, batch_size=_GROUP, threads=threads, device="cpu")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="resample")

    def part(self, item: Encoded) -> str:
        header = item.header
        small = header.width * header.height <= _LARGEST_PIXELS
        return "plain" if header.plain_jpeg and small else self._pillow.part(item)

    def cost_bytes(self, item: Encoded) -> int:
        copied = item.header.width * item.header.height * _COPY_BYTES if self.part(item) == "plain" else 0
        return self._cost_bytes(item) + copied

    def __call__(self, group: Sequence[Encoded], memory: Memory) -> Pixels:
        if self.part(group[0]) != "plain":
            return self._pillow(group, memory)
        try:
            return self._decode(group, memory)
        except _REFUSALS:
            if len(group) > 1:
                raise
            return self._pillow(group, memory)

    def close(self) -> None:
        self._pool.shutdown()
        self._pillow.close()

    def _decode(self, group: Sequence[Encoded], memory: Memory) -> Pixels:
        pixels = np.empty((len(group), *self._preprocess.size_px, 3), np.uint8)
        start = 0
        for part, cost in self._parts(group, memory.size_bytes):
            with memory.lease(cost):
                (images,) = run_graph(self._pipeline, encoded=_bytes(part))
                decoded = [images.at(row) for row in range(len(images))]  # borrowed: the next run overwrites it
                pixels[start : start + len(part)] = list(self._pool.map(self._resampled, decoded))
            start += len(part)
        return pixels

    def _parts(self, group: Sequence[Encoded], most_bytes: int) -> Iterator[tuple[list[Encoded], int]]:
        """Files to decode at one time, with their total cost in bytes; a file of more than ``most_bytes`` is alone."""
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
        return resample_exactly(image, self._preprocess)


class GraphGroup:
    """Decodes and resizes plain JPEGs with DALI, and leaves the pixels on ``device``; Pillow decodes other files."""

    lanes = _LANES
    group_pixels = 256_000_000

    def __init__(self, preprocess: Preprocess, *, batch_size: int, threads: int, device: str) -> None:
        if device != "cpu" and not machine.has_nvjpeg():
            raise DecoderError(
                f"nvJPEG, with which DALI decodes on {device}, is not installed; run: pip install nvidia-nvjpeg, "
                "or decode on the CPU with --decoder turbo"
            )
        self._preprocess = preprocess
        self._cost_bytes = DecodeCost(preprocess)
        self._device = device
        lane_threads = max(1, threads // _LANES)
        self._open_pipeline = partial(
            build_graph, preprocess, batch_size=batch_size, threads=lane_threads, device=device
        )
        self._free: SimpleQueue[Pipeline | None] = SimpleQueue()
        """Pipelines that decode nothing at present; None in place of one that is to be built first."""
        try:
            for _ in range(_LANES):
                self._free.put(self._open_pipeline())
        except DeviceMemoryError as error:
            raise DecoderError(
                f"{device} has too little free memory for a decoder: {error}; run with fewer --processes, free memory "
                "of the GPU, or decode on the CPU with --decoder turbo"
            ) from error
        self._pillow = ThreadedGroup(preprocess, decode_exactly, threads=threads)
        self._refused = 0
        """Number of plain JPEGs in a row that DALI has refused and Pillow decoded."""

    def part(self, item: Encoded) -> str:
        return "plain" if item.header.plain_jpeg else self._pillow.part(item)

    def cost_bytes(self, item: Encoded) -> int:
        return self._cost_bytes(item)

    def __call__(self, group: Sequence[Encoded], memory: Memory) -> Pixels | DevicePixels:
        if not group[0].header.plain_jpeg:
            return self._pillow(group, memory)
        try:
            pixels = self._decoded(group, memory)
        except DeviceMemoryError as error:
            if len(group) > 1:
                raise self._full_gpu_error(group, error) from error
            return self._decode_with_pillow(group, error, memory)
        except (*_REFUSALS, MemoryError) as error:
            if len(group) > 1:
                raise
            return self._decode_with_pillow(group, error, memory)
        self._refused = 0
        return pixels

    def close(self) -> None:
        self._pillow.close()
        while not self._free.empty():
            self._free.get()

    def _decoded(self, group: Sequence[Encoded], memory: Memory) -> Pixels | DevicePixels:
        """The pixels of ``group``, from a pipeline that holds no data of another group.

        A pipeline is usable again if it could not decode a file. After any other error a new pipeline is built, which
        takes a second on a GPU: the old one may still hold inputs of the failed group, or memory of a full GPU.
        """
        pipeline = self._free.get()
        usable = False
        try:
            pipeline = pipeline or self._open_pipeline()
            with memory.lease(self._host_bytes(group)):
                pixels = self._run(pipeline, group)
            usable = True
        except RuntimeError as error:
            usable = DECODE_OPERATOR in str(error)
            raise
        finally:
            self._free.put(pipeline if usable else None)
        return pixels

    def _full_gpu_error(self, group: Sequence[Encoded], error: Exception) -> DecoderError:
        return DecoderError(
            f"{self._device} has too little free memory to decode {len(group):,} images at a time: {error}; run with "
            f"--batch-size {len(group) // 2}, free memory of the GPU, or decode on the CPU with --decoder turbo"
        )

    def _run(self, pipeline: Pipeline, group: Sequence[Encoded]) -> Pixels | DevicePixels:
        boxes = np.array([self._preprocess.region(item.header.width, item.header.height) for item in group], np.float32)
        (images,) = run_graph(
            pipeline,
            encoded=_bytes(group),
            start=np.ascontiguousarray(boxes[:, [1, 0]]),
            end=np.ascontiguousarray(boxes[:, [3, 2]]),
        )
        if self._device == "cpu":
            return np.array(images.as_array())
        tensor = images.as_tensor()  # keeps DALI's memory alive as long as it is referenced
        return DevicePixels(tuple(tensor.shape()), tensor.data_ptr(), tensor)

    def _host_bytes(self, group: Sequence[Encoded]) -> int:
        """Peak host memory of a group, in bytes; for a GPU, parsing takes at most one channel of each image."""
        costs = [self.cost_bytes(item) for item in group]
        if self._device == "cpu":
            return sum(costs)
        return max(max(costs), sum(item.header.width * item.header.height for item in group))

    def _decode_with_pillow(self, group: Sequence[Encoded], error: Exception, memory: Memory) -> Pixels:
        """The pixels, by Pillow, of a file that DALI has refused, so that its row does not depend on the device.

        Raises:
            DecoderError: If DALI has refused so many files in a row that the GPU is at fault, and not the files.
        """
        pixels = self._pillow(group, memory)
        self._refused += 1
        if self._refused > _MOST_REFUSED:
            raise DecoderError(
                f"DALI refuses on {self._device} what Pillow decodes, {self._refused:,} files in a row: "
                f"{' '.join(str(error).split())[:MOST_ERROR_CHARACTERS]}; decode on the CPU with --decoder turbo, "
                "or free memory of the GPU"
            ) from error
        return pixels


def _bytes(group: Sequence[Encoded]) -> list[npt.NDArray[np.uint8]]:
    return [np.frombuffer(item.data, np.uint8) for item in group]
