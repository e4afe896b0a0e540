"""Frame header and scans of a JPEG, read from its markers before any pixel is decoded. Source: ITU-T T.81, B."""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_START_OF_SCAN, _END_OF_IMAGE, _APP0 = 0xDA, 0xD9, 0xE0
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
BASELINE, EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
"""Markers of frames with Huffman coding; other frames are lossless, hierarchical or arithmetic."""
TABLES = (0xC4, 0xDB, 0xDD, 0xFE)
"""Markers of Huffman tables, quantization tables, the restart interval and comments."""
JFIF_BYTES = 16
_COEFFICIENTS, _LOWEST_BIT = 64, 13
"""Coefficients in a block, and largest number of low bits that a progressive scan may leave to later scans."""
USUAL_SAMPLING = (b"\x11", *(luma + b"\x11\x11" for luma in (b"\x11", b"\x21", b"\x22", b"\x12", b"\x41")))
"""Sampling factors of the components: of gray; of 4:4:4, 4:2:2, 4:2:0, 4:4:0 and 4:1:1."""
_IN_ONE_SCAN = np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8), _END_OF_IMAGE])
"""(256,) True for what may follow a byte 0xFF in a sound scan: a stuffed zero, restarts, the image's end."""
_AMONG_PIXELS = np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8), 0xFF])
"""(256,) True for what follows a byte 0xFF that is no segment's beginning."""
_MOST_SEGMENTS = 1 << 16
"""Largest number of segments that are walked through; a sound image has far fewer."""
_IN_SCANS = _IN_ONE_SCAN | np.isin(np.arange(256), [0xC4, _START_OF_SCAN])
_ALLOWED = {BASELINE: _IN_ONE_SCAN, EXTENDED: _IN_ONE_SCAN, _PROGRESSIVE: _IN_SCANS}


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """A JPEG's first frame header, and properties of its scans."""

    width: int
    height: int
    depth: int
    """Bits per channel."""
    ordinary: bool
    """Whether only one frame, its tables and JFIF's segment precede the first scan, so that all readers agree."""
    plain: bool
    """Whether the image is complete, of a usual kind, and without a foreign marker or a progression that libjpeg
    refuses, so that every interface of libjpeg-turbo gives the same pixels."""
    scans: int
    """Number of scans of the image; without a frame at its place, the number of start-of-scan markers in the file."""
    end: int | None = None
    """Offset of the image's end, after which the file may continue; None if the image has no end, or is not found."""
    components: int = 0
    """Number of color components."""
    coefficients: float = 0.0
    """Coefficients per pixel that libjpeg stores until the last scan; 0 if there is only one scan."""


def jpeg_header(data: bytes) -> JpegHeader:
    """The header of a file that begins as a JPEG; width and height are 0 if no frame precedes the first scan."""
    position, frame, ordinary = 2, b"", True
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != _START_OF_SCAN:
        marker, end = data[position + 1], position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _FRAMES and not frame and end - position > 10:
            frame = data[position + 1 : end]
        elif marker not in TABLES and (marker != _APP0 or end - position < JFIF_BYTES):
            ordinary = False
        position = end
    if not frame or data[position : position + 2] != b"\xff\xda":
        return JpegHeader(
            0, 0, frame[3] if len(frame) > 3 else 0, False, False, int(_counts(_after_0xff(data, 0)[1])[_START_OF_SCAN])
        )
    scans, ends_at, markers, scan_headers = _walk_scans(data, position)
    allowed = _ALLOWED.get(frame[0])
    # Any other marker within a scan is damage, at which libjpeg would end and DALI fill the rest with gray.
    whole = allowed is not None and ends_at is not None and not markers[~allowed].any()
    if frame[0] == _PROGRESSIVE:  # a GPU's decoder would decode scans that libjpeg refuses
        whole = whole and all(map(_can_be_refined, scan_headers))
    return JpegHeader(
        width=int.from_bytes(frame[6:8], "big"),
        height=int.from_bytes(frame[4:6], "big"),
        depth=frame[3],
        ordinary=ordinary,
        plain=whole and frame[3] == 8 and frame[10::3] in USUAL_SAMPLING,
        scans=scans,
        end=ends_at,
        components=frame[8],
        coefficients=_samples_a_pixel(frame) if frame[0] == _PROGRESSIVE or scans > 1 else 0.0,
    )


def _samples_a_pixel(frame: bytes) -> float:
    """Samples per pixel of all components together: 3 if none is subsampled, 1.5 for 4:2:0."""
    sides = [(sampling >> 4, sampling & 15) for sampling in frame[10::3]]
    across, down = (max((side[axis] for side in sides), default=0) for axis in (0, 1))
    if not across * down:  # damaged sampling factors, with which nothing can be decoded
        return float(len(sides))
    return sum(horizontal * vertical for horizontal, vertical in sides) / (across * down)


def _can_be_refined(scan_header: bytes) -> bool:
    """Whether libjpeg decodes a progressive scan with this header. Source: libjpeg-turbo, jdphuff.c.

    Args:
        scan_header: The segment after its length: components, the band of coefficients, and the bits of these.
    """
    components = scan_header[0] if scan_header else 0
    if len(scan_header) < 4 + 2 * components:
        return False
    first, last, bits = scan_header[1 + 2 * components : 4 + 2 * components]
    bit_before, bit_now = bits >> 4, bits & 15
    is_band = last == 0 if first == 0 else first <= last < _COEFFICIENTS and components == 1
    return is_band and bit_now <= _LOWEST_BIT and bit_before in (0, bit_now + 1)


def _walk_scans(data: bytes, start: int) -> tuple[int, int | None, npt.NDArray[np.int64], list[bytes]]:
    """Number of scans of an image, offset of its end, (256,) counts of the bytes after a 0xFF in it, and scan headers.

    Bytes after the image do not count, such as another picture, a film or zeros. If the image has no end mark, its end
    is None, and all bytes of the file count.

    Args:
        start: Offset of the first scan.
    """
    # Python's own bisection, because NumPy's functions release the lock, and other threads would run first.
    places, following = _after_0xff(data, start)
    segment_places = places[~_AMONG_PIXELS[following]]
    position, scans = start, list[bytes]()
    for _ in range(_MOST_SEGMENTS):
        marker = data[position + 1]
        if marker == _END_OF_IMAGE:
            return len(scans), position + 2, _counts(following[1 : bisect_left(places, position)]), scans
        segment_end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == _START_OF_SCAN:
            scans.append(data[position + 4 : segment_end])
        number = bisect_left(segment_places, segment_end)
        if number == len(segment_places):
            return len(scans), None, _counts(following[1:]), scans
        position = int(segment_places[number])
    counts = _counts(following[1:])
    return 1 + int(counts[_START_OF_SCAN]), None, counts, scans


def _after_0xff(data: bytes, start: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """(n,) offsets of the bytes 0xFF from ``start`` on, and (n,) the byte after each."""
    values = np.frombuffer(data, np.uint8)
    places = start + np.flatnonzero(values[start:-1] == 0xFF)
    return places, values[places + 1]


def _counts(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """(256,) number of occurrences of each byte among ``values``."""
    return np.bincount(values, minlength=256)
