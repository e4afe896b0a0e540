"""Build and run DALI's graph from encoded images to pixels."""

import re
from collections.abc import Sequence
from typing import Any

from nvidia.dali import Pipeline, fn, types

from batchcls.errors import DeviceMemoryError
from batchcls.networks.preprocess import Preprocess

MOST_ERROR_CHARACTERS = 400
"""Largest length of an excerpt from DALI's error texts."""
DECODE_OPERATOR = "fn.decoders.image"
"""DALI's name for the operator that failed on a file, in its error texts."""
_FULL_GPU = re.compile(
    r"Can't allocate \d+ bytes on device|CUDA allocation failed|device allocator failed"
    "|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY|CUDA.*out of memory|out of memory.*CUDA",
    re.DOTALL,
)
"""DALI's error texts for a lack of GPU memory."""
_FULL_HOST = ("std::bad_alloc", "out of memory")
"""DALI's error texts for a lack of host memory."""
_FILTERS = {
    "bilinear": types.INTERP_LINEAR,
    "bicubic": types.INTERP_CUBIC,
    "lanczos": types.INTERP_LANCZOS3,
}


def run_graph(pipeline: Pipeline, **inputs: Any) -> Sequence[Any]:
    """The outputs of a graph for one batch of each input.

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
    """`DeviceMemoryError` or MemoryError if the GPU or the host lacked memory, otherwise ``error`` itself."""
    text = " ".join(str(error).split())
    if full_gpu := _FULL_GPU.search(text):
        return DeviceMemoryError(text[full_gpu.start() :][:MOST_ERROR_CHARACTERS])
    return MemoryError(text[:MOST_ERROR_CHARACTERS]) if any(sign in text for sign in _FULL_HOST) else error


def build_graph(preprocess: Preprocess | None, *, batch_size: int, threads: int, device: str) -> Pipeline:
    """A graph from the input ``encoded``, bytes of image files, to uint8 RGB pixels on ``device``.

    With ``preprocess`` the output is (N, H, W, 3), resized from the box between the inputs ``start`` and ``end``, each
    (row, column) in pixels; without it, (H, W, 3) for each image in its own size.

    Args:
        preprocess: Size and filter of resizing; None: images are not resized.
        batch_size: Largest number of images in a batch.
        threads: Number of CPU threads.
        device: ``cpu``, or ``cuda:N``, where the GPU's JPEG engine, its cores and CPU threads decode together.

    Raises:
        DeviceMemoryError: If the GPU has too little memory.
        MemoryError: If the host has too little memory.
    """
    number = None if device == "cpu" else int(device.removeprefix("cuda:"))
    # Nothing is prefetched, so that an exception concerns the files of the present batch.
    pipeline = Pipeline(
        batch_size=batch_size, num_threads=threads, device_id=number, prefetch_queue_depth=1, exec_dynamic=True
    )
    with pipeline:
        encoded = fn.external_source(name="encoded", device="cpu", no_copy=True)
        images = fn.decoders.image(
            encoded,
            device="cpu" if number is None else "mixed",
            output_type=types.RGB,
            adjust_orientation=False,  # as in Pillow, so that pixels are those of training
            jpeg_fancy_upsampling=True,  # as in Pillow
            hw_decoder_load=1.0,  # with less, an image's pixels would depend on its batch, for the two decoders differ
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
    try:
        pipeline.build()
    except RuntimeError as error:
        raise translated_error(error) from error
    return pipeline
