"""Slides become pixels: one module for each decoder."""

from importlib import import_module
from typing import Literal, cast

from batchcls.errors import DecoderError
from batchcls.images.decoders.base import Decoder, DecoderOptions
from batchcls.records import Preprocess

DecoderName = Literal["turbo", "dali", "pillow"]

DEFAULT: DecoderName = "turbo"
"""The decoder that is fastest on a CPU."""


def open_decoder(name: DecoderName, preprocess: Preprocess, options: DecoderOptions) -> Decoder:
    """The decoder called ``name``, ready to decode for an engine that wants ``preprocess``.

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
    return cast(Decoder, module.open_decoder(preprocess, options))
