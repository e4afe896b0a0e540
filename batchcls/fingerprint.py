"""What an image shows, as a number that two files share only if they show the same."""

import hashlib
import os

from batchcls.image_formats import decode, examine, largest_bytes

_LARGEST_PIXELS = 200_000_000


def fingerprint(file: str) -> bytes:
    """16 bytes of the file's size and pixels as RGB, whatever it is stored as.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no image that `batchcls run` decodes; or whatever Pillow raises of damaged pixels.
    """
    with open(file, "rb") as stream:
        if os.fstat(stream.fileno()).st_size > largest_bytes(_LARGEST_PIXELS):
            raise ValueError("it has more bytes than an image may have")
        data = stream.read()
    pixels = decode(data, examine(file, data, _LARGEST_PIXELS))
    digest = hashlib.blake2b(repr((pixels.shape[1], pixels.shape[0])).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.digest()
