"""DALI's graph from encoded images to pixels, and how to run it."""

import re
from collections.abc import Sequence
from typing import Any

from nvidia.dali import Pipeline, fn, types

from batchcls.errors import DeviceMemoryError
from batchcls.records import Preprocess

MOST_ERROR_CHARACTERS = 400
"""Length to which DALI's error texts are cut."""
DECODE_OPERATOR = "fn.decoders.image"
"""DALI's name for the operator that failed on a file, in its error texts."""
_FULL_GPU = re.compile(
    r"Can't allocate \d+ bytes on device|CUDA allocation failed|device allocator failed"
    "|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|CUDA.*out of memory|out of memory.*CUDA",
    re.DOTALL,
)
"""What DALI says when the GPU's memory is taken."""
_FULL_HOST = ("std::bad_alloc", "out of memory")
"""What DALI says when the host's memory is taken."""
_FILTERS = {
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
    "lanczos": types.INTERP_LANCZOS3,
}


def run_graph(pipeline: Pipeline, **inputs: Any) -> Sequence[Any]:
    """A graph's outputs for one batch of each of its inputs.

    Raises:
        DeviceMemoryError: If the GPU had too little memory.
        MemoryError: If the host had too little memory.
        RuntimeError, ValueError, IndexError, TypeError: If DALI could not decode some of the files.
    """
    try:
        outputs: Sequence[Any] = pipeline.run(**inputs)
    except RuntimeError as error:
        raise translated_error(error) from error
    return outputs


def translated_error(error: RuntimeError) -> Exception:
    """DALI's error; or the error that says whether the GPU or the host had too little memory."""
    text = " ".join(str(error).split())
    if full_gpu := _FULL_GPU.search(text):
        return DeviceMemoryError(text[full_gpu.start() :][:MOST_ERROR_CHARACTERS])
    return MemoryError(text[:MOST_ERROR_CHARACTERS]) if any(sign in text for sign in _FULL_HOST) else error


def build_graph(preprocess: Preprocess | None, *, batch_size: int, threads: int, device: str) -> Pipeline:
    """A graph from ``encoded`` bytes to RGB, uint8 on ``device``.

    Args:
        preprocess: (N, H, W, 3), resized from the box between ``start`` and ``end``, each (row, column) in pixels.
            None: (H, W, 3) of each image, as it was stored.
        device: ``cpu``, or ``cuda:N``, where the GPU's JPEG engine, its cores and CPU threads decode together.
    """
    number = None if device == "cpu" else int(device.removeprefix("cuda:"))
    # Nothing is prefetched, so that an exception is of the files that were just handed over.
    pipeline = Pipeline(
        batch_size=batch_size, num_threads=threads, device_id=number, prefetch_queue_depth=1, exec_dynamic=True
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", device="cpu", no_copy=True)
        images = fn.decoders.image(
            encoded,
            device="cpu" if number is None else "mixed",
            output_type=types.RGB,
            adjust_orientation=False,  # as Pillow does, so that pixels are those of training
            jpeg_fancy_upsampling=True,  # likewise
            hw_decoder_load=1.0,  # a share would let an image's pixels depend on its batch: the two decoders differ
        )
        if preprocess is not None:
            start, end = (fn.external_source(name=name, device="cpu") for name in ("start", "end"))
            images = fn.resize(
                images,
                size=[float(side) for side in preprocess.size_px],
                roi_start=start,
                roi_end=end,
                interp_type=_FILTERS[preprocess.interpolation],
                antialias=True,
                subpixel_scale=False,
            )
        pipeline.set_outputs(images)
    pipeline.build()
    return pipeline
