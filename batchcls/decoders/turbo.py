"""Decode JPEGs with libjpeg-turbo, large ones at a reduced scale, and the rest with DALI: the fast way on a CPU."""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import simplejpeg

from batchcls.decoders.batching import CPU_GROUP_PIXELS, BatchingDecoder
from batchcls.decoders.dali import DaliGroup
from batchcls.decoders.reader import Encoded
from batchcls.decoders.resample import quickly
from batchcls.records import Pixels, Preprocess

_LEAST_REDUCTION = 2.0
"""Below it, libjpeg-turbo has no smaller scale that still holds every pixel that is wanted."""


def open(preprocess: Preprocess, *, batch_size: int, threads: int, max_pixels: int, device: str) -> BatchingDecoder:
    """The decoder of `batchcls.decoders.open_decoder`."""
    group = _TurboGroup(preprocess, threads=threads)
    return BatchingDecoder(group, preprocess.size_px, batch_size=batch_size, max_pixels=max_pixels)


class _TurboGroup:
    """A JPEG that will be made smaller by half or more need not be decoded whole: its DCT blocks are decoded smaller.

    What is left to the filter is at least the wanted size, and so comes out a little sharper than in training: by
    0.3 of 255 on average over real smear fields of 640x480 pixels, by 10 at most; by more in images that are all
    noise. `--decoder dali` decodes whole.
    """

    lanes = 1
    group_pixels = CPU_GROUP_PIXELS

    def __init__(self, preprocess: Preprocess, *, threads: int) -> None:
        self._preprocess = preprocess
        self._dali = DaliGroup(preprocess, quickly, threads=threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="turbo")

    def __call__(self, group: Sequence[Encoded]) -> Pixels:
        pixels = np.empty((len(group), *self._preprocess.size_px, 3), np.uint8)
        done = self._pool.map(self._jpeg_into, pixels, group)
        left = [row for row, is_done in enumerate(done) if not is_done]
        pixels[left] = self._dali([group[row] for row in left])
        return pixels

    def close(self) -> None:
        self._pool.shutdown()
        self._dali.close()

    def _jpeg_into(self, row: Pixels, item: Encoded) -> bool:
        """Whether ``row`` now holds the file's pixels; else they are DALI's to decode."""
        if item.suspect or not item.plain_jpeg:
            return False
        left, top, right, bottom = self._preprocess.region(item.width, item.height)
        height, width = self._preprocess.size_px
        reduction = min((right - left) / width, (bottom - top) / height)
        reduced = reduction >= _LEAST_REDUCTION
        try:
            image = simplejpeg.decode_jpeg(
                item.data,
                min_width=math.ceil(item.width / reduction) if reduced else 0,
                min_height=math.ceil(item.height / reduction) if reduced else 0,
                min_factor=_LEAST_REDUCTION,
            )
        except ValueError:  # what libjpeg warns of; whether it is fatal is DALI's to say, as for every other file
            return False
        row[:] = quickly(image, self._preprocess, (item.width, item.height))
        return True
