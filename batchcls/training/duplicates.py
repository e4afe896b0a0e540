"""What an image shows, as a number that two files share only if they show the same."""

import hashlib

from batchcls.images.image_file import image_pixels


def fingerprint(file: str) -> bytes:
    """16 bytes of the file's size and pixels as RGB, whatever it is stored as.

    Raises:
        OSError: If the file cannot be read, or does not answer.
        ValueError: If it is no image that `batchcls run` decodes; or whatever Pillow raises of damaged pixels.
    """
    pixels = image_pixels(file)
    digest = hashlib.blake2b(repr((pixels.shape[1], pixels.shape[0])).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.digest()
