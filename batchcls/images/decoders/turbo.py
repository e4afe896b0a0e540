"""Decode JPEGs with libjpeg-turbo and the rest with Pillow, and resample in vector instructions: the CPU's fast way."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
import simplejpeg

from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.decoders.batching import CPU_GROUP_PIXELS, BatchingDecoder
from batchcls.images.decoders.pillow import decode_resized, total_cost_bytes
from batchcls.images.decoders.read_ahead import Encoded
from batchcls.images.decoders.resample import resample_quickly
from batchcls.memory import Memory
from batchcls.records import Pixels, Preprocess


def open_decoder(preprocess: Preprocess, options: DecoderOptions) -> BatchingDecoder:
    """The decoder that `batchcls.images.decoders.open_decoder` calls ``turbo``."""
    group = _TurboGroup(preprocess, threads=options.threads)
    return BatchingDecoder(group, preprocess.size_px, options)


class _TurboGroup:
    """Decodes to the same pixels as Pillow, bit for bit; only the rounding of resampling differs.

    JPEGs are decoded at full size. Decoding at libjpeg's reduced scales would save a quarter of the time, but lose fine
    structure: the difference is 0.3 of 255 on average over real fields of 640x480 pixels, and 14 over stripes of 4
    pixels, and neither a reduced image nor its file's size tells how large it is.
    """

    lanes = 1
    group_pixels = CPU_GROUP_PIXELS

    def __init__(self, preprocess: Preprocess, *, threads: int) -> None:
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="turbo")

    def part(self, item: Encoded) -> str:
        return "suspect" if item.header.suspect else "sound"

    def cost_bytes(self, item: Encoded) -> int:
        return total_cost_bytes(item, self._preprocess)

    def __call__(self, group: Sequence[Encoded], memory: Memory) -> Pixels:
        pixels = np.empty((len(group), *self._preprocess.size_px, 3), np.uint8)
        list(self._pool.map(self._decode_into, pixels, group, repeat(memory)))
        return pixels

    def close(self) -> None:
        self._pool.shutdown()

    def _decode_into(self, row: Pixels, item: Encoded, memory: Memory) -> None:
        with memory.lease(self.cost_bytes(item)):
            row[:] = self._decoded(item)

    def _decoded(self, item: Encoded) -> Pixels:
        if item.header.plain_jpeg:
            try:
                return resample_quickly(simplejpeg.decode_jpeg(item.data), self._preprocess)
            except ValueError:  # a warning of libjpeg's; Pillow decides whether it is fatal, as for other files
                pass
        return decode_resized(item, self._preprocess, resample_quickly)
