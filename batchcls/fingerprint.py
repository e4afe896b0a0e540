"""What an image shows, as a number that two files share only if they show the same."""

import hashlib

from PIL import Image

_LARGEST_PIXELS = 200_000_000


def fingerprint(file: str) -> bytes:
    """16 bytes of the file's size and pixels as RGB, whatever it is stored as.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no image that Pillow can decode; or SyntaxError, which Pillow raises as well.
    """
    with Image.open(file) as image:
        if image.width * image.height > _LARGEST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        pixels = image.convert("RGB")
        digest = hashlib.blake2b(repr(pixels.size).encode(), digest_size=16)
        digest.update(pixels.tobytes())
        return digest.digest()
