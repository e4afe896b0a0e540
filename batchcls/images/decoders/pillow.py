"""Decode with Pillow, as torchvision does in training: the reference for faster decoders."""

from batchcls.images.decoders.base import DecoderOptions
from batchcls.images.decoders.batching import BatchingDecoder
from batchcls.images.decoders.encoded import Encoded
from batchcls.images.decoders.resample import Resample, resample_exactly
from batchcls.images.decoders.threaded import ThreadedGroup
from batchcls.images.formats import inspection
from batchcls.networks.preprocess import Preprocess
from batchcls.records import Pixels


def open_decoder(preprocess: Preprocess, options: DecoderOptions) -> BatchingDecoder:
    """The decoder that `batchcls.images.decoders.open_decoder` calls ``pillow``."""
    group = ThreadedGroup(preprocess, decode_exactly, threads=options.threads)
    return BatchingDecoder(group, preprocess.size_px, options)


def decode_exactly(item: Encoded, preprocess: Preprocess) -> Pixels:
    """(H, W, 3) uint8 RGB pixels in the engine's input size, exactly those of training."""
    return decode_resized(item, preprocess, resample_exactly)


def decode_resized(item: Encoded, preprocess: Preprocess, resample: Resample) -> Pixels:
    """(H, W, 3) uint8 RGB pixels in the engine's input size, decoded by Pillow and resized by ``resample``."""
    return resample(inspection.decode(item.data, item.header), preprocess)
