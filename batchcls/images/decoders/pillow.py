"""Decode with Pillow, as torchvision does in training: the reference for faster decoders."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np

from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.decoders.batching import CPU_GROUP_PIXELS, BatchingDecoder
from batchcls.images.decoders.read_ahead import Encoded
from batchcls.images.decoders.resample import Resample, cost_bytes, resample_exactly
from batchcls.images.formats import inspection
from batchcls.memory import Memory
from batchcls.records import Pixels, Preprocess


def open_decoder(preprocess: Preprocess, options: DecoderOptions) -> BatchingDecoder:
    """The decoder that `batchcls.images.decoders.open_decoder` calls ``pillow``."""
    group = PillowGroup(preprocess, threads=options.threads)
    return BatchingDecoder(group, preprocess.size_px, options)


class PillowGroup:
    """Decodes and resamples with Pillow, one image in each thread."""

    lanes = 1
    group_pixels = CPU_GROUP_PIXELS

    def __init__(self, preprocess: Preprocess, *, threads: int) -> None:
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pillow")

    def part(self, item: Encoded) -> str:
        return "suspect" if item.header.suspect else "sound"

    def cost_bytes(self, item: Encoded) -> int:
        return total_cost_bytes(item, self._preprocess)

    def __call__(self, group: Sequence[Encoded], memory: Memory) -> Pixels:
        pixels = np.empty((len(group), *self._preprocess.size_px, 3), np.uint8)
        if len(group) == 1:  # in this thread, for it may hold all memory that the pool's threads wait for
            self._decode_into(pixels[0], group[0], memory)
        else:
            list(self._pool.map(self._decode_into, pixels, group, repeat(memory)))
        return pixels

    def close(self) -> None:
        self._pool.shutdown()

    def _decode_into(self, row: Pixels, item: Encoded, memory: Memory) -> None:
        with memory.lease(self.cost_bytes(item)):
            row[:] = decode_resized(item, self._preprocess, resample_exactly)


def total_cost_bytes(item: Encoded, preprocess: Preprocess) -> int:
    """Peak memory of decoding and resizing a file, in bytes."""
    return max(item.header.decode_bytes, cost_bytes(item.header.width, item.header.height, preprocess))


def decode_resized(item: Encoded, preprocess: Preprocess, resample: Resample) -> Pixels:
    """(H, W, 3) uint8 RGB pixels in the engine's input size, decoded by Pillow and resized by ``resample``."""
    return resample(inspection.decode(item.data, item.header), preprocess)
