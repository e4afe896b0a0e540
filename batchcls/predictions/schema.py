"""The columns of a predictions file, declared once for the writer and the reader."""

from dataclasses import dataclass

import pyarrow as pa

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


def file_schema(classes: int) -> pa.Schema:
    """The schema of a predictions file whose engine has ``classes`` classes."""
    probabilities = pa.list_(pa.float32(), classes)
    return pa.schema([(column.name, column.type or probabilities) for column in COLUMNS])


def part_schema(classes: int) -> pa.Schema:
    """The schema of a part of an unfinished run, whose roots and labels are positions in lists of the whole run."""
    whole = file_schema(classes)
    return pa.schema([field.with_type(pa.int32()) if pa.types.is_dictionary(field.type) else field for field in whole])
