"""Sizes that the footer and the page headers of a Parquet file state.

pyarrow reads footers too, but ends the process over some damaged ones, and tells nothing of pages.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_MAGIC = b"PAR1"
_HEADER_BYTES, _LARGEST_HEADER_BYTES = 1 << 12, 1 << 24
_LARGEST_DEPTH = 16
DICTIONARY_ENCODINGS = (2, 8)
"""Numbers of the encodings in which a page holds positions in a dictionary."""


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """A column in a row group."""

    row_group: int
    column: int
    """Position of the column among the leaves of the schema."""
    values: int
    """Number of values that the footer states."""
    begin: int
    """Offset of the first page."""
    end: int
    """Offset after the last page."""
    codec: int = 0
    """Number of the codec by which the pages are compressed; 0 for none."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a column, by its header."""

    offset: int
    """Offset of the first byte after the header."""
    stored_bytes: int
    decompressed_bytes: int
    values: int
    """Number of values, nulls included; 0 of a dictionary."""
    encoding: int
    """Number of the encoding of the values; 0 of a dictionary."""
    level_bytes: int | None
    """Bytes of levels before the compressed values; None in the first version of data pages, which compresses both."""
    is_compressed: bool
    """Whether the column's codec compresses the values."""
    is_dictionary: bool


@dataclass(slots=True)
class PageTotals:
    """Sums over the pages of a column in a row group."""

    decompressed_bytes: int = 0
    """Size of all pages after decompression."""
    values: int = 0
    """Number of values."""
    dictionary_bytes: int = 0
    """Size of the dictionary after decompression; 0 if there is none."""
    from_dictionary: int = 0
    """Length of the shortest beginning of the column that contains all values stored as positions in the dictionary."""


def footer_bytes(stream: BinaryIO) -> int:
    """Length of the footer in bytes, as stated at the end of the file; 0 if the file has no footer.

    Raises:
        OSError: If the file cannot be read.
    """
    stream.seek(max(0, stream.seek(0, 2) - 8))
    tail = stream.read(8)
    return int.from_bytes(tail[:4], "little") if tail[4:] == _MAGIC else 0


def column_chunks(stream: BinaryIO) -> Iterator[ColumnChunk]:
    """Every column of every row group.

    Raises:
        ValueError: If the footer is damaged.
    """
    length = footer_bytes(stream)
    stream.seek(max(0, stream.seek(0, 2) - 8 - length))
    try:
        footer, _ = _struct(stream.read(length), 0, 0)
    except IndexError as error:
        raise ValueError("its footer is damaged") from error
    for group, row_group in enumerate(_list(footer, 4)):
        for column, chunk in enumerate(_list(row_group, 1)):
            metadata = chunk.get(3) if isinstance(chunk, dict) else None
            if not isinstance(metadata, dict):
                raise ValueError("its footer is damaged")
            starts = [_count(metadata, number) for number in (9, 11) if number in metadata]
            begin = min((start for start in starts if start), default=0)  # an offset of 0 means: no dictionary
            yield ColumnChunk(
                group, column, _count(metadata, 5), begin, begin + _count(metadata, 7), _count(metadata, 4)
            )


def page_totals(stream: BinaryIO, chunk: ColumnChunk) -> PageTotals:
    """Totals over a column's pages, computed from the pages' headers; sizes in the footer are not trusted.

    Raises:
        ValueError: If a page's header is damaged.
    """
    totals = PageTotals()
    for page in pages(stream, chunk):
        totals.decompressed_bytes += page.decompressed_bytes
        if page.is_dictionary:
            totals.dictionary_bytes += page.decompressed_bytes
        totals.values += page.values
        if page.encoding in DICTIONARY_ENCODINGS:
            totals.from_dictionary = totals.values
    totals.values = max(totals.values, chunk.values)
    return totals


def pages(stream: BinaryIO, chunk: ColumnChunk) -> Iterator[Page]:
    """The pages of a column, in their order, until they hold all values.

    Raises:
        ValueError: If a page's header is damaged.
    """
    values, at = 0, chunk.begin
    while at < chunk.end and values < max(1, chunk.values):
        header, length = _header(stream, at)
        page = _page(header, at + length)
        values += page.values
        at = page.offset + page.stored_bytes
        yield page


def _page(header: dict[int, Any], offset: int) -> Page:
    """A page whose bytes begin at ``offset``, by the fields of its header."""
    decompressed_bytes, stored = _count(header, 2), _count(header, 3)
    second, first = header.get(8), header.get(5)
    values, encoding, level_bytes = 0, 0, None
    if isinstance(second, dict):
        values, encoding, level_bytes = _count(second, 1), _count(second, 4), _count(second, 5) + _count(second, 6)
    elif isinstance(first, dict):
        values, encoding = _count(first, 1), _count(first, 2)
    is_compressed = not (isinstance(second, dict) and second.get(7) is False)
    return Page(offset, stored, decompressed_bytes, values, encoding, level_bytes, is_compressed, 7 in header)


def _count(fields: dict[int, Any], number: int) -> int:
    value = fields.get(number)
    if type(value) is not int or value < 0:
        raise ValueError("its footer or a page's header is damaged")
    return value


def _header(stream: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """The fields of the page header at an offset, by field number, and the length of the header in bytes."""
    size = _HEADER_BYTES
    while True:
        stream.seek(at)
        data = stream.read(size)
        try:
            return _struct(data, 0, 0)
        except IndexError as error:
            if len(data) < size or size >= _LARGEST_HEADER_BYTES:
                raise ValueError("its footer or a page's header is damaged") from error
            size *= 16


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct in Thrift's compact protocol, by field number, and the offset after the struct.

    Args:
        at: Offset of the struct in ``data``.
        depth: Number of structs and lists around the struct.

    Raises:
        IndexError: If ``data`` ends within the struct.
        ValueError: If the bytes are no such struct, or are nested too deep.
    """
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at] & 15:
        step, at = data[at] >> 4, at + 1
        if not step:
            step, at = _signed_varint(data, at)
            number = 0
        number += step
        fields[number], at = _value(data, at, kind, depth)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):
        return kind == 1, at
    if kind == 3:
        return data[at], at + 1
    if kind in (4, 5, 6):
        return _signed_varint(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        length, at = _varint(data, at)
        return None, at + length
    if kind in (9, 10) and depth < _LARGEST_DEPTH:
        return _items(data, at, depth + 1)
    if kind == 12 and depth < _LARGEST_DEPTH:
        return _struct(data, at, depth + 1)
    raise ValueError("its footer or a page's header is damaged")


def _items(data: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    count, kind, at = data[at] >> 4, data[at] & 15, at + 1
    if count == 15:
        count, at = _varint(data, at)
    if kind in (1, 2):  # in a list, unlike in a struct, a truth value takes a byte
        return [], at + count
    items = []
    for _ in range(count):
        item, at = _value(data, at, kind, depth)
        if at > len(data):
            raise IndexError(at)
        items.append(item)
    return items, at


def _list(fields: Any, number: int) -> list[Any]:
    value = fields.get(number) if isinstance(fields, dict) else None
    if not isinstance(value, list):
        raise ValueError("its footer is damaged")
    return value


def _signed_varint(data: bytes, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        value |= (data[at] & 127) << shift
        if data[at] < 128:
            return value, at + 1
        at, shift = at + 1, shift + 7
    raise ValueError("its footer or a page's header is damaged")
