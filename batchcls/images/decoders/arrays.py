"""Batches of images that are decoded already, resized as decoders resize theirs."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

from batchcls.images.decoders import DecoderName
from batchcls.images.decoders.resample import resample_exactly, resample_quickly
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Batch, Pixels, Slide

_GROUP_BYTES = 64 << 20
"""Size of the images at which a batch is full, so that a batch of huge images does not take huge memory."""


def array_batches(
    images: Iterable[tuple[Slide, Pixels] | None],
    preprocess: Preprocess,
    *,
    decoder: DecoderName,
    batch_size: int,
    threads: int,
) -> Iterator[Batch]:
    """Batches of (H, W, 3) uint8 RGB images, in order, with the pixels that ``decoder`` would have given.

    A batch is smaller than ``batch_size`` if its images are large, or if None tells that no more come for a moment.
    """
    resample = resample_quickly if decoder == "turbo" else resample_exactly

    def resize(image: Pixels) -> Pixels:
        return resample(np.ascontiguousarray(image), preprocess)

    with ThreadPoolExecutor(threads, thread_name_prefix="resize") as pool:
        for group in _groups(images, batch_size):
            since = perf_counter()
            pixels = np.empty((len(group), *preprocess.size_px, 3), np.uint8)
            for row, resized in enumerate(pool.map(resize, [image for _, image in group])):
                pixels[row] = resized
            yield Batch(
                slides=[slide for slide, _ in group],
                sizes=[(image.shape[1], image.shape[0]) for _, image in group],
                pixels=pixels,
                decode_s=perf_counter() - since,
            )


def _groups(images: Iterable[tuple[Slide, Pixels] | None], batch_size: int) -> Iterator[list[tuple[Slide, Pixels]]]:
    group: list[tuple[Slide, Pixels]] = []
    size_bytes = 0
    for image in images:
        if image is not None:
            group.append(image)
            size_bytes += image[1].nbytes
        if group and (image is None or len(group) == batch_size or size_bytes >= _GROUP_BYTES):
            yield group
            group, size_bytes = [], 0
    if group:
        yield group
