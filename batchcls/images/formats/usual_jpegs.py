"""Headers of many JPEGs at a time, in NumPy; only the usual ones are recognized, and others need `examine`."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from batchcls.images.formats.jpeg_markers import BASELINE, EXTENDED, JFIF_BYTES, TABLES, USUAL_SAMPLING

_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE, _APP0 = 0xFFD8, 0xFFDA, 0xD9, 0xFFE0
_MOST_SEGMENTS = 24
"""Largest number of segments before the scan of a usual JPEG; cameras write ten."""
_LEAST_BYTES = 32
"""Bytes that every JPEG with a frame and a scan has."""
_MARGIN_BYTES = 32
_OTHER, _TABLE, _FRAME, _JFIF, _SCAN = range(5)
_KINDS = np.zeros(1 << 16, np.uint8)
_KINDS[[0xFF00 | marker for marker in TABLES]] = _TABLE
_KINDS[[0xFF00 | BASELINE, 0xFF00 | EXTENDED]], _KINDS[_APP0], _KINDS[_START_OF_SCAN] = _FRAME, _JFIF, _SCAN
"""(65536,) kind of a segment by its first two bytes; `_OTHER` for segments that a usual JPEG does not have."""
_IS_PIXEL = np.isin(np.arange(256), [0x00, *range(0xD0, 0xD8)])
"""(256,) True for what follows a byte 0xFF among the pixels of a scan: a stuffed zero, or a restart."""
_FIRST_BIT = np.array([8 - number.bit_length() for number in range(256)], np.int64)
_WITHOUT_FIRST_BIT = np.array([number & ~(1 << number.bit_length() >> 1) for number in range(256)], np.uint8)
"""(256,) position of a byte's first bit that is set, from the left, and the byte without it."""
_FTYP = int.from_bytes(b"ftyp", "big")
"""Bytes by which HEIC and AVIF are known, whatever stands before them."""

Positions = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class UsualJpegs:
    """Headers of N files; the values of files that are no usual JPEG are meaningless."""

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
        data: (bytes,) bytes of all files, and 32 more behind the last file.
        starts: (N,) offset of each file's first byte, ascending.
        ends: (N,) offset behind each file's last byte.
    """
    words = _overlapping_words(data)
    usual = (ends - starts >= _LEAST_BYTES) & (words[starts] >> 16 == _START_OF_IMAGE) & (words[starts + 4] != _FTYP)
    scans, frames = _walk_segments(words, starts + 2)
    usual &= (frames > 0) & (scans + 4 <= ends)
    scans, frames = np.where(usual, scans, starts), np.where(usual, frames, starts)
    usual &= _has_one_scan(data, words, scans, ends)
    heights, widths = words[frames + 3] & 0xFFFF, words[frames + 7] >> 16
    components = data[frames + 9].astype(np.int64)
    usual &= _is_usual_frame(data, words, frames, components) & (widths > 0) & (heights > 0)
    return UsualJpegs(usual, widths.astype(np.int64), heights.astype(np.int64), components)


def _overlapping_words(data: npt.NDArray[np.uint8]) -> Words:
    """(bytes - 3,) the four bytes from each offset on, as a number; a view of ``data``."""
    return np.ndarray((len(data) - 3,), ">u4", data, strides=(1,))


def _walk_segments(words: Words, positions: Positions) -> tuple[Positions, Positions]:
    """(N,) offsets of each file's first scan and of its frame, which is 0 if anything unusual precedes the scan.

    Args:
        words: See `_overlapping_words`.
        positions: (N,) offset of each file's first segment.
    """
    frames = np.zeros(len(positions), np.int64)
    unusual = np.zeros(len(positions), np.bool_)
    last = len(words) - _MARGIN_BYTES
    for _ in range(_MOST_SEGMENTS):
        heads = words[positions]
        kinds, lengths = _KINDS[heads >> 16], heads & 0xFFFF
        at_frame = kinds == _FRAME
        unusual |= (kinds == _OTHER) | (at_frame & (frames > 0)) | ((kinds == _JFIF) & (lengths + 2 < JFIF_BYTES))
        frames[at_frame] = positions[at_frame]
        walking = (kinds != _SCAN) & ~unusual
        if not walking.any():
            break
        positions = np.minimum(positions + (2 + lengths.astype(np.int64)) * walking, last)
    return positions, np.where(unusual | walking, 0, frames)


def _has_one_scan(
    data: npt.NDArray[np.uint8], words: Words, scans: Positions, ends: Positions
) -> npt.NDArray[np.bool_]:
    """(N,) whether nothing but pixels stands between a scan's header and the end of the image, which is in the file."""
    places, following = _foreign_markers(data[: ends[-1] + 1])
    if not len(places):
        return np.zeros(len(scans), np.bool_)
    first = np.searchsorted(places, scans + 1)  # behind the scan's own marker
    known = first < len(places)
    first = np.minimum(first, len(places) - 1)
    headers_end = scans + 2 + (words[scans] & 0xFFFF)
    return np.asarray(
        known & (following[first] == _END_OF_IMAGE) & (places[first] >= headers_end) & (places[first] + 2 <= ends)
    )


def _foreign_markers(data: npt.NDArray[np.uint8]) -> tuple[Positions, npt.NDArray[np.uint8]]:
    """(n,) ascending offsets of the bytes 0xFF, but the last byte, that do not belong to pixels; (n,) the bytes after.

    NumPy finds the set bits of 64 KiB of bools in 16 us, and those of the same bools in packed bits in 3 us.
    """
    bits = np.packbits(data[:-1] == 0xFF)
    octets = np.flatnonzero(bits != 0)
    left = bits[octets]
    found: list[Positions] = []
    while len(octets):
        places = 8 * octets + _FIRST_BIT[left]
        found.append(places[~_IS_PIXEL[data[places + 1]]])
        left = _WITHOUT_FIRST_BIT[left]
        octets, left = octets[left > 0], left[left > 0]
    places = np.sort(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return places, data[places + 1]


def _is_usual_frame(
    data: npt.NDArray[np.uint8], words: Words, frames: Positions, components: Positions
) -> npt.NDArray[np.bool_]:
    """(N,) whether frames have 8 bits a channel, as many components as they say, and usual sampling factors."""
    sized = (data[frames + 4] == 8) & (words[frames] & 0xFFFF == 8 + 3 * components)
    samplings = np.stack([data[frames + 11 + 3 * number] for number in range(3)], axis=1)
    usual = np.zeros(len(frames), np.bool_)
    for sampling in USUAL_SAMPLING:
        wanted = np.frombuffer(sampling, np.uint8)
        usual |= (components == len(wanted)) & (samplings[:, : len(wanted)] == wanted).all(axis=1)
    return np.asarray(sized & usual)
