"""One image file, checked and read as training sees it."""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from batchcls.images.formats.inspection import Header, decode, examine
from batchcls.images.formats.pixels import check_size_px, open_image
from batchcls.images.formats.refusal import largest_bytes
from batchcls.images.sources import read_slide
from batchcls.records import Pixels, Slide
from batchcls.storage.timeouts import READ_TIMEOUT_S

LARGEST_PIXELS = 200_000_000
"""Largest number of pixels of an image where the user has no option to say another."""


def read_image(
    slide: Slide, max_pixels: int = LARGEST_PIXELS, timeout_s: float = READ_TIMEOUT_S
) -> tuple[bytes, Header]:
    """A slide's bytes, and its header, which promises an image that can be decoded.

    Raises:
        OSError: If it cannot be read, or does not answer in ``timeout_s`` seconds.
        RefusedError: If it is no image that `batchcls run` decodes.
    """
    data = read_slide(slide, largest_bytes(max_pixels), timeout_s)
    return data, examine(slide.file, data, max_pixels)


def image_pixels(slide: Slide) -> Pixels:
    """(H, W, 3) uint8 RGB, as Pillow decodes a slide.

    Raises:
        OSError: As by `read_image`.
        RefusedError: As by `read_image`; or whatever Pillow raises of damaged pixels.
    """
    return decode(*read_image(slide))


@contextmanager
def opened_image(slide: Slide, timeout_s: float = READ_TIMEOUT_S) -> Iterator[Image.Image]:
    """A slide as an image of Pillow's that is not decoded yet, so that a smaller one can be decoded from it.

    Raises:
        OSError: As by `read_image`.
        RefusedError: As by `read_image`; or whatever Pillow raises of damaged pixels.
    """
    data, header = read_image(slide, timeout_s=timeout_s)
    with open_image(header.format, data) as image:
        check_size_px(image, header.width, header.height)
        yield image
