"""What an image shows, as a number that two files share only if they show the same."""

import hashlib

from PIL import Image

_LARGEST_PIXELS = 200_000_000
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "TIFF", "WEBP", "JPEG2000", "PPM")
"""Whatever else Pillow opens, no engine would be asked."""


def fingerprint(file: str) -> bytes:
    """16 bytes of the file's size and pixels as RGB, whatever it is stored as.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is no image that Pillow can decode; or SyntaxError, which Pillow raises as well.
    """
    Image.MAX_IMAGE_PIXELS = None  # it would warn, and raise what is no ValueError; the size is checked here
    with Image.open(file) as image:
        if image.width * image.height > _LARGEST_PIXELS:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        one_bit = image.format == "TIFF" and image.mode == "1"
        if image.format not in _FORMATS or one_bit or image.mode[0] in "IF" or ";16" in str(image.tile):
            raise ValueError(f"batchcls run does not decode {image.format} of mode {image.mode} at this depth")
        pixels = image.convert("RGB")
        digest = hashlib.blake2b(repr(pixels.size).encode(), digest_size=16)
        digest.update(pixels.tobytes())
        return digest.digest()
