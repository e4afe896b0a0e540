"""Byte strings in the pages of a Parquet file, found without decoding the other pages of their row group.

pyarrow decodes row groups from their first row on, which for the last one of a thousand images takes a thousand images.
The encodings are those of the Parquet format, "Encodings": PLAIN, RLE_DICTIONARY, and RLE for levels.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batchcls.storage.parquet_pages import DICTIONARY_ENCODINGS, Page

_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
"""pyarrow's names of codecs, by their numbers in the Parquet format."""
_PLAIN = 0
_LARGEST_WIDTH = 32
_MOST_VALUES = 1 << 22
"""Largest plausible number of values in a page."""

Values = list[memoryview | None]


class UnsupportedPageError(ValueError):
    """A page in a form that is not read here."""


def page_values(page: Page, data: bytes, codec: int, levels: int, dictionary: Values | None) -> Values:
    """The values of a page of byte strings; None for null.

    Args:
        data: Bytes of the page, without its header.
        codec: Number of the codec of its column.
        levels: Definition level of values that are not null; 0 if there are no nulls.
        dictionary: Values of the dictionary of the column in the same row group.

    Raises:
        UnsupportedPageError: If the codec or the encoding is not read here.
        ValueError: If the page is damaged.
        MemoryError: If there is too little memory.
    """
    if page.values > _MOST_VALUES:
        raise UnsupportedPageError(f"a page of {page.values:,} values")
    present, content = _present_and_content(page, data, codec, levels)
    count = page.values if present is None else int(present.sum())
    if page.encoding in DICTIONARY_ENCODINGS:
        stored = _from_dictionary(content, count, dictionary or [])
    elif page.encoding == _PLAIN:
        stored = _plain(content, count)
    else:
        raise UnsupportedPageError(f"encoding {page.encoding}")
    if present is None:
        return stored
    following = iter(stored)
    return [next(following) if is_present else None for is_present in present.tolist()]


def dictionary_values(page: Page, data: bytes, codec: int) -> Values:
    """The values of a dictionary page; raises what `page_values` raises."""
    content = memoryview(_decompressed(data, page.decompressed_bytes, codec))
    values: Values = []
    at = 0
    while at < len(content):
        value, at = _next_plain(content, at)
        values.append(value)
    return values


def _present_and_content(
    page: Page, data: bytes, codec: int, levels: int
) -> tuple[npt.NDArray[np.bool_] | None, memoryview]:
    """Whether each value is present, None if all are; and the encoded values."""
    if page.level_bytes is not None:
        size = page.decompressed_bytes - page.level_bytes
        if not 0 <= page.level_bytes <= len(data) or size < 0:
            raise ValueError("a page has impossible sizes")
        content = memoryview(_decompressed(data[page.level_bytes :], size, codec if page.is_compressed else 0))
        runs = memoryview(data)[: page.level_bytes]
    else:
        content = memoryview(_decompressed(data, page.decompressed_bytes, codec))
        length = int.from_bytes(content[:4], "little") if levels else -4
        runs, content = content[4 : 4 + length], content[4 + length :]
    if not levels:
        return None, content
    return _unpacked(runs, levels.bit_length(), page.values) == levels, content


def _decompressed(data: bytes, size: int, codec: int) -> bytes:
    if codec == 0:
        return data
    if codec not in _CODECS:
        raise UnsupportedPageError(f"codec {codec}")
    try:
        content: bytes = pa.decompress(data, decompressed_size=size, codec=_CODECS[codec], asbytes=True)
    except pa.ArrowMemoryError as error:
        raise MemoryError(str(error)) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError("a page cannot be decompressed") from error
    return content


def _plain(content: memoryview, count: int) -> Values:
    values: Values = []
    at = 0
    for _ in range(count):
        value, at = _next_plain(content, at)
        values.append(value)
    return values


def _next_plain(content: memoryview, at: int) -> tuple[memoryview, int]:
    """The value at an offset, behind its length, and the offset after the value."""
    start = at + 4
    end = start + int.from_bytes(content[at:start], "little")
    if start > len(content) or end > len(content):
        raise ValueError("a page ends within a value")
    return content[start:end], end


def _from_dictionary(content: memoryview, count: int, dictionary: Sequence[memoryview | None]) -> Values:
    if not count:
        return []
    if not len(content) or content[0] > _LARGEST_WIDTH:
        raise ValueError("a page has no positions in the dictionary")
    positions = _unpacked(content[1:], content[0], count)
    if positions.max() >= len(dictionary):
        raise ValueError("a page names values that the dictionary does not have")
    return [dictionary[position] for position in positions.tolist()]


def _unpacked(runs: memoryview, width: int, count: int) -> npt.NDArray[np.int64]:
    """(count,) numbers of ``width`` bits each, in runs of equal numbers and of packed ones."""
    numbers = np.zeros(count, np.int64)
    filled = at = 0
    while filled < count:
        if at >= len(runs):
            if not width:
                break
            raise ValueError("a page ends within its levels or positions")
        header, at = _varint(runs, at)
        if header & 1:
            groups = min(header >> 1, -(-(count - filled) // 8))
            packed = np.frombuffer(runs[at : at + groups * width], np.uint8)
            if len(packed) < groups * width:
                packed = np.pad(packed, (0, groups * width - len(packed)))  # the last group may be cut
            bits = np.unpackbits(packed, bitorder="little").reshape(-1, width) if width else np.zeros((groups * 8, 0))
            run = bits.astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))
            at += (header >> 1) * width
        else:
            size = -(-width // 8)
            run = np.full(min(header >> 1, count - filled), int.from_bytes(runs[at : at + size], "little"), np.int64)
            at += size
        run = run[: count - filled]
        numbers[filled : filled + len(run)] = run
        filled += len(run)
    return numbers


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64 and at < len(data):
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at
    raise ValueError("a page has a damaged number")
