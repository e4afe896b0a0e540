"""Tables of labels, as spreadsheets and programs of all kinds write them."""

import codecs
import csv
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from batchcls.errors import LabelsError
from batchcls.images.labels.json_lines import read_json_lines
from batchcls.storage.regular_file import open_regular
from batchcls.storage.table_memory import check_memory, check_parquet_size

COLUMNS = ("path", "label", "group", "split")
"""Names of the recognized columns; their case does not matter."""
_LONGEST_HEADER = 1 << 16
_LARGEST_BYTES = 4 << 30
"""Largest size of a table, enough for some hundred million rows; a larger file is probably no table of labels."""
_HEADER_UTF16 = len("path,label".encode("utf-16-le"))
_DELIMITERS = ",;\t|"
_CELL_ENDS = (*(mark.encode() for mark in _DELIMITERS), b"\n")
_TEXT_EXPANSION, _CELL_BYTES = 4, 24
"""Bytes of memory for each byte of text while it is read, and for each cell beside its text."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # which begins with the mark of UTF-16
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_NO_TABLE = {
    b"PK\x03\x04": "is a spreadsheet (.xlsx, .ods) or a ZIP file, not a table of text; save it there as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is an old spreadsheet (.xls), not a table of text; save it there as CSV UTF-8",
    b"\x1f\x8b": "is compressed; unpack it first",
    b"ARROW1": "is an Arrow file; save it as Parquet or CSV",
}
"""Reason why a file is no table of text, by the file's first bytes."""
_SEPARATOR_LINE = re.compile(rb"""\s*"?sep=([^\r\n"])"?[,;\t |]*(?:\r\n|\r|\n)""", re.IGNORECASE)
"""First line of a CSV file for Excel, which names the separator."""
_BLANK_LINES = re.compile(rb"""(?:[,;\t |]*(?:\r\n|\r|\n))*""")
_PARQUET = b"PAR1"
_JSON_LINES = (".jsonl", ".ndjson")


def read_label_table(path: Path) -> tuple[pa.Table, list[str]]:
    """A table of labels from a file in CSV, JSON Lines or Parquet.

    CSV may be in UTF-8, UTF-16, UTF-32 or Windows-1252, with any usual separator.

    Returns:
        The columns that have a name, without empty rows; and notes for the user on how the file was read. The columns
        of `COLUMNS` have their names in lower case, and hold strings without surrounding blanks, null if empty.

    Raises:
        LabelsError: If the file is no such table.
    """
    notes: list[str] = []
    try:
        stream, status = open_regular(path)
        with stream:
            head = stream.read(_LONGEST_HEADER)
        if (size := status.st_size) > _LARGEST_BYTES:
            raise LabelsError(f"{str(path)!r} is too large for a table of labels: {size:,} of {_LARGEST_BYTES:,} bytes")
        for mark, why in _NO_TABLE.items():
            if head.startswith(mark):
                raise LabelsError(f"{str(path)!r} {why}")
        if head.startswith(_PARQUET) or path.suffix.lower() == ".parquet":
            check_parquet_size(path, whole=True)
            table = pq.read_table(path, partitioning=None)
        elif path.suffix.lower() in _JSON_LINES:
            table = read_json_lines(path)
        else:
            _encoding(head)
            text, notes = _utf8(path)
            table = _read_csv(text)
        return _normalize_columns(table, path), notes
    except (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError) as error:
        mend = (
            ""
            if path.suffix.lower() in (".parquet", *_JSON_LINES)
            else "; a CSV file must be UTF-8, with the columns' names first"
        )
        raise LabelsError(f"{str(path)!r} cannot be read as a table of labels: {error}{mend}") from error


def _utf8(path: Path) -> tuple[bytes, list[str]]:
    """The text of a file, converted to UTF-8, and notes for the user."""
    check_memory(path, _TEXT_EXPANSION * path.stat().st_size)
    raw = path.read_bytes()
    cells = sum(raw.count(mark) for mark in _CELL_ENDS)
    check_memory(path, _TEXT_EXPANSION * len(raw) + _CELL_BYTES * cells)
    mark, encoding = _encoding(raw)
    if encoding:
        return raw[len(mark) :].decode(encoding).encode(), []
    try:
        raw.decode()
        return raw, []
    except UnicodeDecodeError as error:
        around = raw[: error.start].decode()
        if not around.isascii():  # it is UTF-8, and damaged
            raise
        text = raw.decode("cp1252")
        word = re.split(r"[,;\t|\r\n]", text[: error.start])[-1] + re.split(r"[,;\t|\r\n]", text[error.start :])[0]
        return text.encode(), [
            f"{str(path)!r} is not UTF-8 and was read as Windows-1252: make sure that {word!r} is what it should say, "
            "or save it as UTF-8."
        ]


def _encoding(raw: bytes) -> tuple[bytes, str]:
    """The byte order mark of a text, and its encoding; both empty if the text has neither a mark nor zero bytes."""
    for mark, encoding in _MARKS.items():
        if raw.startswith(mark):
            return mark, encoding
    halves = [raw[:_HEADER_UTF16][start::2] for start in (0, 1)]
    for half, other, encoding in ((halves[0], halves[1], "utf-16-be"), (halves[1], halves[0], "utf-16-le")):
        if half and not any(half) and any(other):
            return b"", encoding
    if b"\0" in raw:
        raise UnicodeError("it holds bytes that are no text")
    return b"", ""


def _read_csv(text: bytes) -> pa.Table:
    """A CSV table with all cells as text, since a number would lose leading zeros, as of patient 007."""
    separator = _SEPARATOR_LINE.match(text)
    text = text[separator.end() :] if separator else text
    text = text[_BLANK_LINES.match(text).end() :]  # type: ignore[union-attr]  # it matches nothing as well
    delimiter = separator[1].decode() if separator else _delimiter(text)
    parsing = pa.csv.ParseOptions(
        delimiter=delimiter,
        newlines_in_values=True,
        invalid_row_handler=lambda row: "error" if row.text.strip(f'{delimiter}" \t\x1a') else "skip",
    )
    with pa.csv.open_csv(pa.BufferReader(text), parse_options=parsing) as stream:
        as_text = dict.fromkeys(stream.schema.names, pa.string())
    # Only an empty field is missing: a class may well be called NA or null.
    options = pa.csv.ConvertOptions(column_types=as_text, strings_can_be_null=True, null_values=[""])
    return pa.csv.read_csv(pa.BufferReader(text), parse_options=parsing, convert_options=options)


def _delimiter(text: bytes) -> str:
    """The delimiter by which the header has the required columns; if there is none, the one with most columns."""
    header = re.split(r"\r\n|\r|\n", text[:_LONGEST_HEADER].decode(errors="replace"), maxsplit=1)[0]

    def columns(mark: str) -> tuple[bool, int]:
        names = [name.strip().lower() for name in next(csv.reader([header], delimiter=mark), [])]
        return set(COLUMNS[:2]) <= set(names), len(names)

    return max(_DELIMITERS, key=columns)


def _normalize_columns(table: pa.Table, path: Path) -> pa.Table:
    """``table`` with the columns, types and rows that `read_label_table` describes."""
    table.validate(full=True)  # strings in a Parquet file may not be UTF-8
    names = [str(name).strip() for name in table.column_names]
    names = [name.lower() if name.lower() in COLUMNS else name for name in names]
    # Columns without a name: pandas' index, or empty columns of Excel.
    named = [position for position, name in enumerate(names) if name]
    table = table.select(named).rename_columns([names[position] for position in named])
    if len(set(table.column_names)) < len(table.column_names):
        raise LabelsError(f"{str(path)!r} has columns of one name: {table.column_names}")
    for position, name in enumerate(table.column_names):
        if name in COLUMNS or pa.types.is_string(table[name].type):
            table = table.set_column(position, name, _words(table[name], trimmed=name != "path"))
    return table.filter(_either([pc.is_valid(column) for column in table.columns])) if table.num_columns else table


def _words(column: pa.ChunkedArray, *, trimmed: bool) -> pa.ChunkedArray:
    """Strings, null for blank ones; if ``trimmed``, without surrounding blanks and in Unicode's composed form."""
    column = column.cast(pa.string())
    # 'ALL' and ' ALL' mean the same class.
    bare = pc.utf8_trim_whitespace(column)
    strings = pc.utf8_normalize(bare, "NFC") if trimmed else column
    return pc.if_else(pc.equal(bare, ""), None, strings)


def _either(masks: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    any_of = masks[0]
    for mask in masks[1:]:
        any_of = pc.or_(any_of, mask)
    return any_of
