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
LABEL_LISTS = pa.list_(pa.string())
"""The type of a column of several labels a row; in a part of an unfinished run they are positions."""
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
MEASURES, COVERAGE, TOP, EMBEDDING = "measures", "coverage", "top", "embedding"
"""Keys of a run's identity for the columns that only some engines and options give: the names of the measures, the
promised coverage of the sets of labels, the number of best labels, and the width of embeddings."""
_KEPT = "kept"
"""Key of a run's identity under which such columns stand, each with its name and its type."""
ANSWERS = ("novelty", "novel", "measures", "labels_set", "top_labels", "top_probabilities", "embedding")
"""Names of the columns that only some engines and options give."""
_LONGEST_LIST = 1 << 16


def file_schema(classes: int, added: pa.Schema = NOTHING_KEPT) -> pa.Schema:
    """The schema of a predictions file.

    Args:
        classes: Number of the engine's classes.
        added: Columns of `added_schema`.
    """
    probabilities = pa.list_(pa.float32(), classes)
    return pa.schema([*((column.name, column.type or probabilities) for column in COLUMNS), *added])


def is_list(kind: pa.DataType) -> bool:
    """Whether a column's values are lists, of a fixed length or not."""
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def check_kept(kept: pa.Schema) -> None:
    """Refuse columns that a predictions file cannot carry over from a table.

    Raises:
        SlidesError: If a column has a type, or a name, that such a column may not have.
    """
    own = {*(column.name for column in COLUMNS), DIGEST, *ANSWERS}
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


def answer_schema(identity: Mapping[str, Any]) -> pa.Schema:
    """The columns of answers that only some engines and options give, by a run's identity.

    Raises:
        ValueError: If the identity is damaged.
    """
    fields: list[tuple[str, pa.DataType]] = []
    if MEASURES in identity:
        length = _list_length(len(identity[MEASURES]) if isinstance(identity[MEASURES], list) else None)
        fields += [("novelty", pa.float32()), ("novel", pa.bool_()), ("measures", pa.list_(pa.float32(), length))]
    if COVERAGE in identity:
        fields.append(("labels_set", LABEL_LISTS))
    if TOP in identity:
        length = _list_length(identity[TOP])
        fields += [("top_labels", LABEL_LISTS), ("top_probabilities", pa.list_(pa.float32(), length))]
    if EMBEDDING in identity:
        fields.append(("embedding", pa.list_(pa.float16(), _list_length(identity[EMBEDDING]))))
    return pa.schema(fields)


def _list_length(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _LONGEST_LIST:
        raise ValueError("its record names lists of an impossible length")
    return value


def added_schema(identity: Mapping[str, Any]) -> pa.Schema:
    """The columns that a file has behind those of every file: digests, `answer_schema`, and `kept_schema`.

    Raises:
        ValueError: If the identity is damaged.
    """
    digest = [(DIGEST, pa.string())] if identity.get(BY_CONTENT) else []
    return pa.schema([*digest, *answer_schema(identity), *kept_schema(identity)])


def part_schema(classes: int, added: pa.Schema = NOTHING_KEPT) -> pa.Schema:
    """The schema of a part of an unfinished run, whose roots and labels are positions in lists of the whole run."""
    positions = {WORDS: pa.int32(), LABEL_LISTS: pa.list_(pa.int32())}
    return pa.schema([field.with_type(positions.get(field.type, field.type)) for field in file_schema(classes, added)])
