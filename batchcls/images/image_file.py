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
    """The bytes of a slide's file, and its header, by which the image can be decoded.

    Args:
        max_pixels: Largest allowed number of pixels, width times height.
        timeout_s: How long the file system may take for one answer.

    Raises:
        OSError: If the file cannot be read, or the file system does not answer in time.
        RefusedError: If the file is no image that `batchcls run` decodes.
    """
    data = read_slide(slide, largest_bytes(max_pixels), timeout_s)
    return data, examine(slide.file, data, max_pixels)


def read_pixels(slide: Slide) -> Pixels:
    """(H, W, 3) uint8 RGB pixels of a slide, as Pillow decodes them.

    Raises:
        OSError: If the file cannot be read, or the file system does not answer in time.
        RefusedError: If the file is no image that `batchcls run` decodes; damaged pixels may raise any Pillow error.
    """
    return decode(*read_image(slide))


@contextmanager
def opened_image(slide: Slide, timeout_s: float = READ_TIMEOUT_S) -> Iterator[Image.Image]:
    """A context that yields a slide as a Pillow image, not decoded yet, so that it can be decoded at a smaller size.

    Args:
        timeout_s: How long the file system may take for one answer.

    Raises:
        OSError: If the file cannot be read, or the file system does not answer in time.
        RefusedError: If the file is no image that `batchcls run` decodes; damaged pixels may raise any Pillow error.
    """
    data, header = read_image(slide, timeout_s=timeout_s)
    with open_image(header.format, data) as image:
        check_size_px(image, header.width, header.height)
        yield image
