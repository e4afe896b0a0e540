"""Decoders from slides to pixels, one module each."""

from importlib import import_module
from typing import Literal, cast

from batchcls.errors import DecoderError
from batchcls.images.decoders.base import Decoder, DecoderOptions
from batchcls.networks.preprocess import Preprocess

DecoderName = Literal["turbo", "dali", "pillow"]

DEFAULT: DecoderName = "turbo"
"""The decoder that is fastest on a CPU."""
_GPU_BATCH_SIZE = 256
"""Files decoded at a time on a GPU: an H200 decodes twice as many small JPEGs in batches of 256 as in batches of 64."""


def default_batch_size(name: DecoderName, device: str, engine_batch_size: int) -> int:
    """The number of files per batch with which a decoder is fastest; an engine may split such batches further."""
    return engine_batch_size if device == "cpu" or name != "dali" else max(engine_batch_size, _GPU_BATCH_SIZE)


def open_decoder(name: DecoderName, preprocess: Preprocess, options: DecoderOptions) -> Decoder:
    """The decoder called ``name``, ready to decode for an engine that wants ``preprocess``.

    Raises:
        DecoderError: If a library that the decoder needs is not installed.
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
