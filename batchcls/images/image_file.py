"""Image files, read with care: regular files alone, within a size, and never waited for without an end."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from batchcls.images.formats.inspection import Header, RefusedError, decode, examine, largest_bytes
from batchcls.records import Pixels
from batchcls.storage import deep_paths
from batchcls.storage.file_client import READ_TIMEOUT_S
from batchcls.storage.regular_file import IrregularError, open_regular, read_fully
from batchcls.storage.timeouts import with_timeout

LARGEST_PIXELS = 200_000_000
"""Of an image that is read where nobody can say another limit."""


def open_checked(file: str, limit_bytes: int) -> tuple[io.FileIO, os.stat_result]:
    """A regular file of 1 to ``limit_bytes`` bytes, opened, and its status; a FIFO or a device is not waited for.

    Raises:
        OSError: If it cannot be opened.
        RefusedError: If it is another kind of file, empty, or larger.
    """
    try:
        stream, status = open_regular(file)
    except IrregularError as error:
        raise RefusedError("not an image", str(error)) from error
    if 0 < status.st_size <= limit_bytes:
        return stream, status
    stream.close()
    if status.st_size == 0:
        raise RefusedError("empty", "it has no bytes")
    raise RefusedError("too large", f"it has {status.st_size:,} bytes; --max-pixels allows for {limit_bytes:,}")


def read_image(file: str, max_pixels: int = LARGEST_PIXELS, timeout_s: float = READ_TIMEOUT_S) -> tuple[bytes, Header]:
    """A file's bytes, and its header, which promises an image that can be decoded.

    Raises:
        OSError: If it cannot be read, or does not answer in ``timeout_s`` seconds.
        RefusedError: If it is no image that `batchcls run` decodes.
    """

    def read() -> bytes:
        stream, status = open_checked(file, largest_bytes(max_pixels))
        with stream:
            return read_fully(stream, status.st_size)

    data = with_timeout(read, timeout_s)
    return data, examine(file, data, max_pixels)


def image_pixels(file: str) -> Pixels:
    """(H, W, 3) uint8 RGB.

    Raises:
        OSError: As by `read_image`.
        RefusedError: As by `read_image`; or whatever Pillow raises of damaged pixels.
    """
    return decode(*read_image(file))


def is_there(file: str, timeout_s: float = READ_TIMEOUT_S) -> bool:
    """Whether ``file`` is a file, or may well be one: on a disk that does not answer."""
    try:
        return stat.S_ISREG(with_timeout(lambda: deep_paths.status(file), timeout_s).st_mode)
    except TimeoutError:
        return True
    except (OSError, ValueError):
        return False


@contextmanager
def opened_image(file: str, timeout_s: float = READ_TIMEOUT_S) -> Iterator[Image.Image]:
    """The image by Pillow, not decoded yet, so that it can be asked for a smaller one.

    Raises:
        OSError: As by `read_image`.
        RefusedError: As by `read_image`; or whatever Pillow raises of damaged pixels.
    """
    data, header = read_image(file, timeout_s=timeout_s)
    Image.MAX_IMAGE_PIXELS = None  # it would warn, and raise what is no ValueError; `examine` has checked the size
    # From bytes: of a file that it has the name of, Pillow maps some, and turns those wrongly.
    with Image.open(io.BytesIO(data), formats=(header.format,)) as image:
        if image.size != (header.width, header.height):
            raise RefusedError("corrupt", "its headers contradict one another")
        yield image
