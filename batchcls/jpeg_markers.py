"""What the markers of a JPEG say of it, before any pixel is decoded. Source: ITU-T T.81, B."""

from dataclasses import dataclass

import numpy as np

_START_OF_SCAN, _END_OF_IMAGE, _APP0 = 0xDA, 0xD9, 0xE0
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
"""Frames of Huffman coding; the others are lossless, hierarchical or arithmetic."""
_TABLES = (0xC4, 0xDB, 0xDD, 0xFE)
"""Huffman and quantization tables, the restart interval, comments."""
_JFIF_BYTES = 16
_USUAL_SAMPLING = (b"\x11", *(luma + b"\x11\x11" for luma in (b"\x11", b"\x21", b"\x22", b"\x12", b"\x41")))
"""Of grey; of 4:4:4, 4:2:2, 4:2:0, 4:4:0 and 4:1:1."""
_IN_ONE_SCAN = np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8), _END_OF_IMAGE])
"""(256,) True for what may follow a byte 0xFF in a sound scan: a stuffed zero, restarts, the image's end."""
_IN_SCANS = _IN_ONE_SCAN | np.isin(np.arange(256), [0xC4, _START_OF_SCAN])
_ALLOWED = {_BASELINE: _IN_ONE_SCAN, _EXTENDED: _IN_ONE_SCAN, _PROGRESSIVE: _IN_SCANS}


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """A JPEG's first frame header, and what else there is."""

    width: int
    height: int
    depth: int
    """Bits a channel."""
    ordinary: bool
    """Nothing precedes the first scan but one frame, its tables and JFIF's segment, of which no reader makes more."""
    plain: bool
    """Whole, of a usual kind and without a foreign marker: every way to ask libjpeg-turbo gives the same pixels."""
    scans: int
    """Scans, or what reads like the beginning of one."""


def jpeg_header(data: bytes) -> JpegHeader:
    """The header of a file that begins as a JPEG; all zeros, but for the scans, if no frame is where it should be."""
    position, frame, ordinary = 2, b"", True
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _START_OF_SCAN:
        marker, end = data[position + 1], position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _FRAMES and not frame and end - position > 10:
            frame = data[position + 1 : end]
        elif marker not in _TABLES and (marker != _APP0 or end - position < _JFIF_BYTES):
            ordinary = False
        position = end
    if not frame or data[position : position + 2] != b"\xff\xda":
        return JpegHeader(0, 0, frame[3] if len(frame) > 3 else 0, False, False, int(_markers(data, 0)[_START_OF_SCAN]))
    markers = _markers(data, position + 2)
    allowed = _ALLOWED.get(frame[0])
    # Among the pixels any other marker is damage: libjpeg would end there, and DALI fill up with grey.
    whole = allowed is not None and markers[_END_OF_IMAGE] > 0 and not markers[~allowed].any()
    return JpegHeader(
        width=int.from_bytes(frame[6:8], "big"),
        height=int.from_bytes(frame[4:6], "big"),
        depth=frame[3],
        ordinary=ordinary,
        plain=whole and frame[3] == 8 and frame[10::3] in _USUAL_SAMPLING,
        scans=1 + int(markers[_START_OF_SCAN]),
    )


def _markers(data: bytes, start: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """(256,) how often 0xFF stands before each byte, from ``start`` on; other threads can run meanwhile."""
    values = np.frombuffer(data, np.uint8)[start:]
    return np.bincount(values[np.flatnonzero(values[:-1] == 0xFF) + 1], minlength=256)
