"""Batches of images that are decoded already, resized as decoders resize theirs."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from time import perf_counter

import numpy as np

from batchcls.images.decoders import DecoderName
from batchcls.images.decoders.resample import resample_exactly, resample_quickly
from batchcls.records import Batch, Pixels, Preprocess, Slide


def array_batches(
    images: Iterable[tuple[Slide, Pixels]],
    preprocess: Preprocess,
    *,
    decoder: DecoderName,
    batch_size: int,
    threads: int,
) -> Iterator[Batch]:
    """Batches of (H, W, 3) uint8 RGB images, in order, with the pixels that ``decoder`` would have given."""
    resample = resample_quickly if decoder == "turbo" else resample_exactly
    images = iter(images)

    def resize(image: Pixels) -> Pixels:
        return resample(np.ascontiguousarray(image), preprocess)

    with ThreadPoolExecutor(threads, thread_name_prefix="resize") as pool:
        while group := list(islice(images, batch_size)):
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
