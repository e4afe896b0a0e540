"""Image files become pixels: one module a decoder."""

from importlib import import_module
from typing import Literal, cast

from batchcls.errors import DecoderError
from batchcls.images.decoders.base import Decoder
from batchcls.images.decoders.read_ahead import ReadOptions
from batchcls.memory import READ_PART, available_bytes
from batchcls.records import Preprocess
from batchcls.storage.file_client import READ_TIMEOUT_S

DecoderName = Literal["turbo", "dali", "pillow"]

DEFAULT: DecoderName = "turbo"
"""What a CPU decodes fastest with."""


def open_decoder(
    name: DecoderName,
    preprocess: Preprocess,
    *,
    batch_size: int,
    threads: int,
    max_pixels: int,
    memory_bytes: int | None = None,
    read_timeout_s: float = READ_TIMEOUT_S,
    device: str = "cpu",
) -> Decoder:
    """The decoder called ``name``, ready to decode for an engine that wants ``preprocess``.

    Args:
        batch_size: The most files in one batch; large images make smaller ones.
        threads: CPU threads that decode.
        max_pixels: Files whose header promises more are refused before memory is taken for them.
        memory_bytes: What files and images may take on their way to the engine's size; None: half of what is available.
        read_timeout_s: How long the file system may take for one answer, before the file is given up.
        device: The engine's. Of the decoders, ``dali`` alone decodes on a GPU, and leaves the pixels there.

    Raises:
        DecoderError: If what it needs is not installed.
    """
    try:
        module = import_module(f"batchcls.images.decoders.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("batchcls"):
            raise  # a bug
        raise DecoderError(
            f"decoder {name!r} needs {error.name}, which is not installed; run: pip install 'batchcls[gpu]', "
            "or decode on the CPU with --decoder turbo or --decoder pillow"
        ) from error
    memory_bytes = memory_bytes or available_bytes() // 2
    reading = memory_bytes // READ_PART
    decoder = module.open(
        preprocess,
        batch_size=batch_size,
        threads=threads,
        read=ReadOptions(max_pixels, read_timeout_s, reading),
        decode_bytes=memory_bytes - reading,
        device=device,
    )
    return cast(Decoder, decoder)
