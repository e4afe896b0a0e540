"""Decode and resize with NVIDIA DALI, a batch at a time."""

from collections.abc import Sequence

import numpy as np
from nvidia.dali import Pipeline, fn, types

from batchcls.decoders.batching import BatchingDecoder
from batchcls.decoders.reader import Encoded
from batchcls.records import Pixels, Preprocess

_FILTERS = {
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
    "lanczos": types.INTERP_LANCZOS3,
}


def open(preprocess: Preprocess, *, batch_size: int, threads: int, max_pixels: int) -> BatchingDecoder:
    """The decoder of `batchcls.decoders.open_decoder`."""
    group = _DaliGroup(preprocess, batch_size=batch_size, threads=threads)
    return BatchingDecoder(group, preprocess.size_px, batch_size=batch_size, max_pixels=max_pixels)


class _DaliGroup:
    def __init__(self, preprocess: Preprocess, *, batch_size: int, threads: int) -> None:
        self._preprocess = preprocess
        self._pipeline = _pipeline(preprocess, batch_size=batch_size, threads=threads)

    def __call__(self, group: Sequence[Encoded]) -> Pixels:
        boxes = np.array([self._preprocess.region(item.width, item.height) for item in group], np.float32)
        left, top, right, bottom = boxes.T
        (images,) = self._pipeline.run(
            encoded=[item.data for item in group],
            start=np.stack([top, left], axis=1),
            end=np.stack([bottom, right], axis=1),
        )
        return np.array(images.as_tensor())  # DALI overwrites its own memory in the next run


def _pipeline(preprocess: Preprocess, *, batch_size: int, threads: int) -> Pipeline:
    """Encoded bytes and the box to resample, as rows and columns, to (H, W, 3) uint8 RGB."""
    pipeline = Pipeline(
        batch_size=batch_size, num_threads=threads, device_id=None, prefetch_queue_depth=1, exec_dynamic=True
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", device="cpu", no_copy=True)
        start = fn.external_source(name="start", device="cpu")
        end = fn.external_source(name="end", device="cpu")
        # Orientation in EXIF is left alone, as Pillow does, so that pixels are those of training.
        image = fn.decoders.image(encoded, device="cpu", output_type=types.RGB, adjust_orientation=False)
        resized = fn.resize(
            image,
            size=preprocess.size_px,
            roi_start=start,
            roi_end=end,
            interp_type=_FILTERS[preprocess.interpolation],
            antialias=True,
        )
        pipeline.set_outputs(resized)
    pipeline.build()
    return pipeline
