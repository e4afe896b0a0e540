"""Decode with Pillow, as torchvision does in training: the reference, not the fast way."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from batchcls.decoders.batching import CPU_GROUP_PIXELS, BatchingDecoder
from batchcls.decoders.reader import Encoded
from batchcls.decoders.resample import exactly
from batchcls.records import Pixels, Preprocess


def open(preprocess: Preprocess, *, batch_size: int, threads: int, max_pixels: int, device: str) -> BatchingDecoder:
    """The decoder of `batchcls.decoders.open_decoder`."""
    Image.MAX_IMAGE_PIXELS = None  # max_pixels has been checked before Pillow sees a file
    group = _PillowGroup(preprocess, threads=threads)
    return BatchingDecoder(group, preprocess.size_px, batch_size=batch_size, max_pixels=max_pixels)


class _PillowGroup:
    lanes = 1
    group_pixels = CPU_GROUP_PIXELS

    def __init__(self, preprocess: Preprocess, *, threads: int) -> None:
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pillow")

    def __call__(self, group: Sequence[Encoded]) -> Pixels:
        return np.stack(list(self._pool.map(self._decode, group)))

    def close(self) -> None:
        self._pool.shutdown()

    def _decode(self, item: Encoded) -> Pixels:
        with Image.open(io.BytesIO(item.data.tobytes())) as image:
            if image.size != (item.width, item.height):
                raise ValueError("its headers contradict one another")
            return exactly(np.asarray(image.convert("RGB")), self._preprocess, image.size)
