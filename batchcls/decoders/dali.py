"""Decode with NVIDIA DALI, a group of files at a time."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from nvidia.dali import Pipeline, fn, types
from PIL import Image

from batchcls.decoders.batching import BatchingDecoder
from batchcls.decoders.reader import Encoded
from batchcls.decoders.resample import resampled
from batchcls.records import Pixels, Preprocess

_GROUP = 16
"""Files decoded at a time: what they decode to is still in the caches when it is resampled."""


def open(preprocess: Preprocess, *, batch_size: int, threads: int, max_pixels: int) -> BatchingDecoder:
    """The decoder of `batchcls.decoders.open_decoder`."""
    group = DaliGroup(preprocess, threads=threads)
    return BatchingDecoder(group, preprocess.size_px, batch_size=batch_size, max_pixels=max_pixels)


class DaliGroup:
    """DALI decodes to what Pillow decodes to, twice as fast; Pillow resamples faster than DALI, on a CPU."""

    def __init__(self, preprocess: Preprocess, *, threads: int) -> None:
        self._preprocess = preprocess
        self._pipeline = _pipeline(threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="resample")

    def __call__(self, group: Sequence[Encoded]) -> Pixels:
        pixels = np.empty((len(group), *self._preprocess.size_px, 3), np.uint8)
        for start in range(0, len(group), _GROUP):
            (images,) = self._pipeline.run(encoded=[item.data for item in group[start : start + _GROUP]])
            decoded = [images.at(row) for row in range(len(images))]  # borrowed: the next run overwrites it
            pixels[start : start + _GROUP] = list(self._pool.map(self._resample, decoded))
        return pixels

    def close(self) -> None:
        self._pool.shutdown()

    def _resample(self, image: Pixels) -> Pixels:
        if image.shape[:2] == self._preprocess.size_px and self._preprocess.resize == "stretch":
            return image
        return resampled(Image.fromarray(image), self._preprocess, (image.shape[1], image.shape[0]))


def _pipeline(threads: int) -> Pipeline:
    """Encoded bytes to (H, W, 3) uint8 RGB."""
    pipeline = Pipeline(
        batch_size=_GROUP, num_threads=threads, device_id=None, prefetch_queue_depth=1, exec_dynamic=True
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", device="cpu", no_copy=True)
        # Orientation in EXIF is left alone, as Pillow does, so that pixels are those of training.
        pipeline.set_outputs(fn.decoders.image(encoded, output_type=types.RGB, adjust_orientation=False))
    pipeline.build()
    return pipeline
