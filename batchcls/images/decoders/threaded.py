"""Decode a group of files on the CPU, one image in each thread, whatever decodes it."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import repeat

import numpy as np

from batchcls.images.decoders.batching import CPU_GROUP_PIXELS
from batchcls.images.decoders.encoded import Encoded
from batchcls.images.decoders.resample import cost_bytes
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Pixels
from batchcls.storage.memory import Memory


class ThreadedGroup:
    """A `batchcls.images.decoders.batching.GroupDecoder` that decodes one image in each thread.

    Args:
        decode: Returns the pixels of one file, (H, W, 3) uint8 RGB in the engine's size; any exception is the file's.
        threads: Number of CPU threads.
    """

    lanes = 1
    group_pixels = CPU_GROUP_PIXELS

    def __init__(
        self, preprocess: Preprocess, decode: Callable[[Encoded, Preprocess], Pixels], *, threads: int
    ) -> None:
        self._preprocess = preprocess
        self._cost_bytes = DecodeCost(preprocess)
        self._decode = decode
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def part(self, item: Encoded) -> str:
        return "suspect" if item.header.suspect else "sound"

    def cost_bytes(self, item: Encoded) -> int:
        return self._cost_bytes(item)

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
            row[:] = self._decode(item, self._preprocess)


class DecodeCost:
    """Peak memory of decoding and resizing a file, in bytes, for an engine that wants ``preprocess``."""

    def __init__(self, preprocess: Preprocess) -> None:
        # Most images of a run have one size.
        self._resampling = lru_cache(1024)(lambda width, height: cost_bytes(width, height, preprocess))

    def __call__(self, item: Encoded) -> int:
        header = item.header
        return max(header.decode_bytes, self._resampling(header.width, header.height))
