"""Image files become pixels: one module a decoder."""

from importlib import import_module
from typing import Literal, cast

from batchcls.contracts import Decoder
from batchcls.records import Preprocess

DecoderName = Literal["dali", "pillow"]


def open_decoder(
    name: DecoderName, preprocess: Preprocess, *, batch_size: int, threads: int, max_pixels: int
) -> Decoder:
    """The decoder called ``name``, ready to decode for an engine that wants ``preprocess``.

    Args:
        batch_size: The most files in one batch; large images make smaller ones.
        threads: CPU threads that decode.
        max_pixels: Files whose header promises more are refused before memory is taken for them.
    """
    module = import_module(f"batchcls.decoders.{name}")
    return cast(Decoder, module.open(preprocess, batch_size=batch_size, threads=threads, max_pixels=max_pixels))
