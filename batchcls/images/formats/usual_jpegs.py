"""Headers of many JPEGs at a time, in NumPy; only the usual ones are recognized, and others need `examine`."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchcls.images.formats.jpeg_markers import BASELINE, EXTENDED, JFIF_BYTES, TABLES, USUAL_SAMPLING

_MARKER = 0xFF
_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE, _APP0 = 0xD8, 0xDA, 0xD9, 0xE0
_MOST_SEGMENTS = 24
"""Largest number of segments before the scan of a usual JPEG; cameras write ten."""
_LEAST_FRAME_BYTES = 11
"""Bytes of a frame header with its marker and one component."""
_TABLE, _FRAME, _JFIF = 1, 2, 3
_KINDS = np.zeros(256, np.uint8)
_KINDS[list(TABLES)], _KINDS[[BASELINE, EXTENDED]], _KINDS[_APP0] = _TABLE, _FRAME, _JFIF
"""(256,) kind of a segment by its marker; 0 for segments that a usual JPEG does not have."""
_IS_PIXEL = np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8)])
"""(256,) True for what follows a byte 0xFF among the pixels of a scan: a stuffed zero, or a restart."""
_FTYP = np.frombuffer(b"ftyp", np.uint8)
"""Bytes by which HEIC and AVIF are known, whatever stands before them."""

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class UsualJpegs:
    """What the headers of N files say; values of files that are no usual JPEG are meaningless."""

    usual: npt.NDArray[np.bool_]
    """(N,) True for a complete JPEG of 8 bits, in one Huffman-coded scan and one of the usual samplings, with nothing
    before the scan but tables and JFIF's segment: `examine` finds it ordinary, plain and not suspect."""
    widths: Positions
    """(N,) width in pixels."""
    heights: Positions
    """(N,) height in pixels."""
    components: Positions
    """(N,) number of color components, 1 or 3."""


def usual_jpegs(data: npt.NDArray[np.uint8], starts: Positions, ends: Positions) -> UsualJpegs:
    """The headers of N files whose bytes stand one after another. Source: ITU-T T.81, B.

    Args:
        data: (bytes,) bytes of all files; two bytes behind the last file are readable.
        starts: (N,) offset of each file's first byte, ascending.
        ends: (N,) offset behind each file's last byte.
    """
    usual = ends - starts >= _LEAST_FRAME_BYTES
    usual[usual] = (data[starts[usual]] == _MARKER) & (data[starts[usual] + 1] == _START_OF_IMAGE)
    usual[usual] = (data[starts[usual, None] + np.arange(4, 8)] != _FTYP).any(axis=1)
    scans, frames = _walk_segments(data, starts, ends, usual)
    usual[usual] = _has_one_scan(data, scans[usual], ends[usual])
    widths, heights, components = (np.zeros(len(starts), np.int64) for _ in range(3))
    frames = frames[usual]
    heights[usual], widths[usual] = _uint16(data, frames + 5), _uint16(data, frames + 7)
    components[usual] = data[frames + 9]
    usual[usual] = _is_usual_frame(data, frames, components[usual])
    usual &= (widths > 0) & (heights > 0)
    return UsualJpegs(usual, widths, heights, components)


def _walk_segments(
    data: npt.NDArray[np.uint8], starts: Positions, ends: Positions, usual: npt.NDArray[np.bool_]
) -> tuple[Positions, Positions]:
    """(N,) offsets of each file's first scan and of its frame; clears ``usual`` for files without these."""
    scans, frames = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
    walking = np.flatnonzero(usual)
    usual[:] = False
    positions, limits = starts[walking] + 2, ends[walking]
    for _ in range(_MOST_SEGMENTS):
        inside = positions + 4 <= limits
        walking, positions, limits = walking[inside], positions[inside], limits[inside]
        markers = data[positions + 1]
        is_marker = data[positions] == _MARKER
        at_scan = is_marker & (markers == _START_OF_SCAN) & (frames[walking] > 0)
        scans[walking[at_scan]] = positions[at_scan]
        usual[walking[at_scan]] = True
        lengths = _uint16(data, positions + 2)
        kinds = _KINDS[markers]
        at_frame = (kinds == _FRAME) & (frames[walking] == 0) & (lengths + 2 >= _LEAST_FRAME_BYTES)
        going_on = is_marker & ((kinds == _TABLE) | at_frame | ((kinds == _JFIF) & (lengths + 2 >= JFIF_BYTES)))
        at_frame &= going_on
        frames[walking[at_frame]] = positions[at_frame]
        if not going_on.any():
            break
        walking, limits = walking[going_on], limits[going_on]
        positions = positions[going_on] + 2 + lengths[going_on]
    return scans, frames


def _has_one_scan(data: npt.NDArray[np.uint8], scans: Positions, ends: Positions) -> npt.NDArray[np.bool_]:
    """(N,) whether nothing but pixels stands between a scan's header and the end of the image, which is in the file."""
    if not len(scans):
        return np.zeros(0, np.bool_)
    places = scans[0] + np.flatnonzero(data[scans[0] : ends[-1]] == _MARKER)
    following = data[places + 1]
    foreign = ~_IS_PIXEL[following]
    places, following = places[foreign], following[foreign]
    first = np.searchsorted(places, scans + 1)  # behind the scan's own marker
    known = first < len(places)
    first = np.minimum(first, len(places) - 1)
    headers_end = scans + 2 + _uint16(data, scans + 2)
    return np.asarray(
        known & (following[first] == _END_OF_IMAGE) & (places[first] >= headers_end) & (places[first] + 2 <= ends)
    )


def _is_usual_frame(data: npt.NDArray[np.uint8], frames: Positions, components: Positions) -> npt.NDArray[np.bool_]:
    """(N,) whether frames have 8 bits a channel, as many components as they say, and usual sampling factors."""
    sized = (data[frames + 4] == 8) & (_uint16(data, frames + 2) == 8 + 3 * components)
    samplings = np.stack([data[frames + 11 + 3 * number] for number in range(3)], axis=1)
    usual = np.zeros(len(frames), np.bool_)
    for sampling in USUAL_SAMPLING:
        wanted = np.frombuffer(sampling, np.uint8)
        usual |= (components == len(wanted)) & (samplings[:, : len(wanted)] == wanted).all(axis=1)
    return np.asarray(sized & usual)


def _uint16(data: npt.NDArray[np.uint8], offsets: Positions) -> Positions:
    return np.asarray((data[offsets].astype(np.int64) << 8) | data[offsets + 1])
