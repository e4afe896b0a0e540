"""Labels in the order of a network's outputs, from the usual lists, mappings and tables of labels."""

import re
import reprlib
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

POSITION_TO_NAME = ("idx_to_class", "id2label", "idx_to_label", "idx2label", "index_to_class", "names")
"""Keys, in lower case, of a mapping from position to label, or of a list of labels."""
NAME_TO_POSITION = ("class_to_idx", "label2id", "label_to_idx", "label2idx", "class_to_index", "classes_to_idx")
"""Keys, in lower case, of a mapping from label to position."""
NAMES = ("class_names", "classes", "label_names", "labels", "classnames")
"""Keys, in lower case, of a list of labels, or of a mapping between labels and positions in either direction."""
LABEL_KEYS = (*NAME_TO_POSITION, *POSITION_TO_NAME, *NAMES)
"""All usual keys of labels, in lower case."""

_MOST_CELLS = 1 << 20
"""Largest number of cells of a table of labels."""
LONGEST_LIST = 300
"""Largest number of characters of a list in an error."""
_MOST_NAMED = 4
"""Largest number of items that an error names."""
POSITION_COLUMNS = ("", "index", "idx", "id", "class_id", "label_id", "class_idx", "class_index", "position", "number")
NAME_COLUMNS = ("name", "label", "class", "class_name", "label_name", "classname", "category")
"""Usual names of columns of positions, and of labels, in lower case."""


class UnclearLabelsError(ValueError):
    """A value contains no labels, or can be read as labels in two ways."""


def parse_labels(values: Any, key: str = "") -> tuple[str, ...]:
    """Labels from a list, from a mapping between labels and positions either way, or from the rows of a table.

    Args:
        values: List, mapping or rows; if ``key`` is empty, also a mapping that holds one of these under a key of
            `LABEL_KEYS`.
        key: Key of `LABEL_KEYS` under which ``values`` was stored, which tells how to read it; empty if there is none.

    Raises:
        UnclearLabelsError: If the values hold no labels, or can be read in two ways.
    """
    if isinstance(values, Mapping):
        if not key and (inner := _labels_by_key(values)):
            return _only_labels(inner)
        return _labels_of_mapping({str(name): value for name, value in values.items()}, key)
    if isinstance(values, list | tuple) and all(isinstance(row, Mapping) for row in values) and values:
        return labels_of_rows([{str(name).lower(): _text(value) for name, value in row.items()} for row in values])
    if not isinstance(values, list | tuple) or not all(isinstance(label, str) for label in values):
        raise UnclearLabelsError("it must hold a list of labels, labels by position, or positions by label")
    return tuple(values)


def comparable_labels(names: Sequence[str], labels: Sequence[str]) -> list[str]:
    """``names`` without case, and without the blanks and signs that tell no two of ``labels`` apart."""

    def letters(name: str) -> str:
        return re.sub(r"[\W_]+", "", _plain(name))

    alone = [letters(label) for label in labels]
    is_enough = len(set(alone)) == len(alone) and all(alone)
    return [letters(name) if is_enough else _plain(name) for name in names]


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def labels_of_rows(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Labels from a table with a column of positions and one of labels, or with one column of labels alone.

    Args:
        rows: Cells by the names of their columns, for each row.

    Raises:
        UnclearLabelsError: If it is unclear which column holds the positions, or which the labels.
    """
    if rows and len(rows) * len(rows[0]) > _MOST_CELLS:
        raise UnclearLabelsError(
            f"it is a table of {len(rows):,} rows and {len(rows[0]):,} columns, most of them empty"
        )
    columns = {name: [row.get(name, "") for row in rows] for name in rows[0]} if rows else {}
    positions = _usual(position_columns(rows), POSITION_COLUMNS)
    names = _usual([name for name in columns if [name] != positions], NAME_COLUMNS)
    if len(names) == 1 and len(columns) == 1:
        return tuple(columns[names[0]])
    if len(positions) != 1 or len(names) != 1:
        raise UnclearLabelsError(
            f"of its columns {str(list(columns))[:LONGEST_LIST]} one must hold the positions 0 to {len(rows) - 1}, "
            "each once, and one the labels: name them index and label"
        )
    (labels,) = reading_of_pairs("", list(zip(columns[positions[0]], columns[names[0]], strict=True))).values()
    return labels


def reading_of_pairs(name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The labels of pairs of position and label, in order of position, under the key ``name``; empty if not possible.

    Args:
        name: Name of the reading, for errors.
        pairs: Pairs of position and label, whose positions must be 0, 1, ..., each once.
    """
    places = dict(pairs)
    if len(places) != len(pairs) or set(places) != set(map(str, range(len(pairs)))) or not pairs:
        return {}
    return {name: tuple(places[str(place)] for place in range(len(pairs)))}


def only_reading(readings: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The labels that all readings agree on.

    Args:
        readings: Labels by the name of the reading, one or more.

    Raises:
        UnclearLabelsError: If the readings differ.
    """
    if len(set(readings.values())) > 1:
        ways = "; or ".join(f"{way} {list(labels)}" for way, labels in readings.items())
        raise UnclearLabelsError(f"it can be read in two ways: {ways}; name the labels as a list instead")
    return next(iter(readings.values()))


def _labels_by_key(values: Mapping[Any, Any]) -> dict[str, tuple[str, ...]]:
    """The labels under each of `LABEL_KEYS` in a mapping, unless such a key is a label itself."""
    lowered = {str(name).lower(): value for name, value in values.items()}
    return {
        key: parse_labels(lowered[key], key)
        for key in LABEL_KEYS
        if isinstance(lowered.get(key), Mapping | list | tuple) and not isinstance(lowered[key], str)
    }


def _only_labels(readings: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if len(set(readings.values())) > 1:
        differing = "; ".join(f"{key} {list(labels)}" for key, labels in readings.items())
        raise UnclearLabelsError(f"it holds labels more than once, and they differ: {differing}")
    return next(iter(readings.values()))


def _labels_of_mapping(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    readings: dict[str, tuple[str, ...]] = {}
    if key not in NAME_TO_POSITION and all(isinstance(value, str | int) for value in values.values()):
        readings |= reading_of_pairs("labels by position", [(name, str(value)) for name, value in values.items()])
    if key not in POSITION_TO_NAME:
        readings |= reading_of_pairs("positions by label", [(_text(value), name) for name, value in values.items()])
    if not readings:
        raise UnclearLabelsError(
            f"its positions are not 0 to {len(values) - 1}, each once; it holds {_first_items(values.items())}"
        )
    return only_reading(readings)


def _text(value: Any) -> str:
    """A label or a position as text; empty for a value of another type, since its text could be huge."""
    return str(value) if isinstance(value, str | int | float) else ""


def position_columns(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Names of the columns that hold the positions 0, 1, ..., each once."""
    return [
        name for name in (rows[0] if rows else ()) if reading_of_pairs("", [(row.get(name, ""), "") for row in rows])
    ]


def _usual(candidates: Sequence[str], usual_names: Sequence[str]) -> list[str]:
    """The columns among ``candidates`` with a usual name; all of them if none has."""
    return [name for name in candidates if name in usual_names] or list(candidates)


def _first_items(items: Any) -> str:
    few = [
        f"{name!r}: {reprlib.repr(value) if _text(value) else type(value).__name__}"
        for name, value in [*items][:_MOST_NAMED]
    ]
    return f"{{{', '.join(few)}{', ...' if len(items) > _MOST_NAMED else ''}}}"
