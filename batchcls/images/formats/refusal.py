"""The error for files that are not given to any decoder, and checks that need only a file's size."""

from batchcls.records import FailureKind

_LARGEST_PIXEL_BYTES = 8
"""Largest size of a pixel in an uncompressed file: four channels of 16 bits."""
_OVERHEAD_BYTES = 16 << 20
"""Room for headers, color profiles and thumbnails."""


class RefusedError(ValueError):
    """A file is not given to any decoder; ``details`` are the fields of its `batchcls.records.Failure`."""

    def __init__(self, kind: FailureKind, reason: str, width: int | None = None, height: int | None = None) -> None:
        super().__init__(f"{kind}: {reason}")
        self.details = (kind, reason, width, height)


def largest_bytes(max_pixels: int) -> int:
    """Size in bytes of the largest file that can hold ``max_pixels``."""
    return max_pixels * _LARGEST_PIXEL_BYTES + _OVERHEAD_BYTES


def check_file(size_bytes: int, limit_bytes: int, *, is_regular: bool) -> None:
    """Refuse, before any byte is read, a file that can be no image of the allowed size.

    Args:
        size_bytes: Bytes of the file, or of the part of it that is the image.
        limit_bytes: Largest allowed size in bytes, see `largest_bytes`.
        is_regular: Whether it is a regular file, and no folder, FIFO or device.

    Raises:
        RefusedError: If the file is not regular, is empty, or is larger than ``limit_bytes``.
    """
    if not is_regular:
        raise RefusedError("not an image", "it is no regular file")
    if size_bytes == 0:
        raise RefusedError("empty", "it has no bytes")
    if size_bytes > limit_bytes:
        raise RefusedError("too large", f"it has {size_bytes:,} bytes; --max-pixels allows for {limit_bytes:,}")
