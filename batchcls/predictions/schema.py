"""The columns of a predictions file, declared once for the writer and the reader."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from batchcls.errors import SlidesError
from batchcls.storage.spreadsheet_cells import text_cell

WORDS = pa.dictionary(pa.int32(), pa.string())
"""The type of a column whose few values repeat: each text once, and its position in every row."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a predictions file."""

    name: str
    type: pa.DataType | None
    """None for ``probabilities``, whose length is the number of the engine's classes."""
    is_required: bool = True
    """Whether a file without the column is no predictions file; columns that came later are not required."""


COLUMNS = (
    Column("root", WORDS),
    Column("path", pa.string()),
    Column("label", WORDS),
    Column("probability", pa.float32()),
    Column("probabilities", None),
    Column("width", pa.int32()),
    Column("height", pa.int32()),
    Column("size_bytes", pa.int64(), is_required=False),
    Column("modified", pa.timestamp("us", "UTC"), is_required=False),
    Column("error", pa.string()),
)
"""All columns, in the order in which they stand in a file."""
REQUIRED = {column.name: column.type for column in COLUMNS if column.is_required}
"""The type of each required column, by name, in the order in which they stand in a file."""
OPTIONAL: dict[str, pa.DataType] = {
    "novelty": pa.float32(),
    "novel": pa.bool_(),
    "measures": pa.list_(pa.float32()),
    "labels_set": pa.list_(pa.string()),
    "top_labels": pa.list_(pa.string()),
    "top_probabilities": pa.list_(pa.float32()),
    "embedding": pa.list_(pa.float16()),
}
"""The type of each column that only some runs write, by name; lists of numbers have one length in a file."""

NOTHING_KEPT = pa.schema([])
_TIMES = [pa.timestamp(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "UTC")]
_NUMBERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
KEPT_TYPES = {
    str(kind): kind for kind in (pa.string(), pa.bool_(), pa.float32(), pa.float64(), pa.date32(), *_NUMBERS, *_TIMES)
}
"""The types that a column may have which a run carries over from a table, by their names."""
PROBABILITY_PREFIX = "p_"
"""Beginning of the names of columns that hold probabilities in CSV, each of one label."""
DIGEST = "digest"
"""Name of the column of digests of the files' bytes, `Slide.digest`, which only files of runs by content have."""
BY_CONTENT = "by_content"
"""Key of a run's identity that is there if its rows hold digests."""
_KEPT = "kept"
"""Key of a run's identity under which such columns stand, each with its name and its type."""


def file_schema(classes: int, added: pa.Schema = NOTHING_KEPT) -> pa.Schema:
    """The schema of a predictions file.

    Args:
        classes: Number of the engine's classes.
        added: Columns of `added_schema`.
    """
    probabilities = pa.list_(pa.float32(), classes)
    return pa.schema([*((column.name, column.type or probabilities) for column in COLUMNS), *added])


def check_kept(kept: pa.Schema) -> None:
    """Refuse columns that a predictions file cannot carry over from a table.

    Raises:
        SlidesError: If a column has a type, or a name, that such a column may not have.
    """
    own = {*(column.name for column in COLUMNS), DIGEST}
    if len({name.lower() for name in kept.names}) < len(kept):
        raise SlidesError(f"--keep {','.join(kept.names)}: name each column once; their case makes no difference")
    for field in kept:
        if str(field.type) not in KEPT_TYPES:
            raise SlidesError(
                f"--keep {field.name}: the column holds {field.type}; texts, numbers, truth values, dates and times "
                "can be kept: write the table with one of these, or leave the column out"
            )
        # DuckDB and Spark take names that differ in case for the same; p_ begins the probabilities in CSV.
        if field.name.lower() in own or field.name.startswith(PROBABILITY_PREFIX):
            raise SlidesError(
                f"--keep {field.name}: predictions files have columns of their own by this name, as are "
                f"{', '.join(sorted(own))} and {PROBABILITY_PREFIX}LABEL: rename the column in the table"
            )
        if not field.name.strip() or text_cell(field.name) != field.name:
            raise SlidesError(
                f"--keep {field.name!r}: a spreadsheet could run this name: rename the column in the table"
            )


def kept_identity(kept: pa.Schema) -> dict[str, Any]:
    """The entries of a run's identity for the columns that it carries over: none without such columns."""
    return {_KEPT: [[field.name, str(field.type)] for field in kept]} if len(kept) else {}


def kept_schema(identity: Mapping[str, Any]) -> pa.Schema:
    """The columns that a run carries over from a table, by its identity.

    Raises:
        ValueError: If the identity is damaged.
    """
    try:
        return pa.schema([pa.field(str(name), KEPT_TYPES[kind]) for name, kind in identity.get(_KEPT, [])])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError("its record names columns of no known type") from error


def added_schema(identity: Mapping[str, Any]) -> pa.Schema:
    """The columns that a file has behind those of every file: digests, and what the run carries over from a table.

    Raises:
        ValueError: If the identity is damaged.
    """
    return pa.schema([*([(DIGEST, pa.string())] if identity.get(BY_CONTENT) else []), *kept_schema(identity)])


def part_schema(classes: int, added: pa.Schema = NOTHING_KEPT) -> pa.Schema:
    """The schema of a part of an unfinished run, whose roots and labels are positions in lists of the whole run."""
    whole = file_schema(classes, added)
    return pa.schema([field.with_type(pa.int32()) if pa.types.is_dictionary(field.type) else field for field in whole])
