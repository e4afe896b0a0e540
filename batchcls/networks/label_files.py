"""Labels in the order of a network's outputs, from files as people have them."""

import csv
import io
import json
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from batchcls.errors import RecipeError
from batchcls.storage.regular_file import distinct, read_text

POSITION_TO_NAME = ("idx_to_class", "id2label", "idx_to_label", "idx2label", "index_to_class", "names")
"""Keys, in lower case, of labels by position; or of a plain list."""
NAME_TO_POSITION = ("class_to_idx", "label2id", "label_to_idx", "label2idx", "class_to_index", "classes_to_idx")
"""Keys, in lower case, of positions by label."""
NAMES = ("class_names", "classes", "label_names", "labels", "classnames")
"""Keys, in lower case, of a list, or of either of the two."""
KEYS = (*NAME_TO_POSITION, *POSITION_TO_NAME, *NAMES)

_LARGEST_BYTES = 1 << 20
_LONGEST = 300
"""Characters of a list that is told."""
_NUMBERED = re.compile(r"(\d+)(?:\s*[\s:;,=]|[.)]\s)\s*(\S.*)")
# Of a line that is read from its end: forwards, a line of blanks would take for ever.
_NUMBERED_AFTER = re.compile(r"(\d+)(?:\s*[:;,=]|\s*\t)\s*(\S|\S.*\S)")
_ENDING_IN_NUMBER = re.compile(r"(\d+) +(.*\S)")
_POSITION_COLUMNS = ("", "index", "idx", "id", "class_id", "label_id", "class_idx", "class_index", "position", "number")
_NAME_COLUMNS = ("name", "label", "class", "class_name", "label_name", "classname", "category")


class UnclearLabelsError(ValueError):
    """Of what holds no labels, or could be read in two ways."""


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels from JSON, YAML, CSV, or text with one a line, which may be numbered from 0.

    Raises:
        RecipeError: If the file does not hold labels, or could be read in two ways.
    """
    text = os.fspath(path)
    try:
        return _parsed(path.suffix.lower(), read_text(path, _LARGEST_BYTES, "utf-8-sig"))
    except UnclearLabelsError as error:
        raise RecipeError(f"labels file {text!r} cannot be used: {error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"labels file {text!r} is not UTF-8; save it in that encoding") from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"labels file {text!r} cannot be read: {reason}") from error


def labels_in_text(text: str, key: str) -> tuple[str, ...]:
    """Labels from JSON, YAML, ``a,b,c``, or what Python prints, of a file's metadata; see `labels_from`.

    Raises:
        UnclearLabelsError: If it holds none, or could be read in two ways.
    """
    if len(text) > _LARGEST_BYTES:
        raise UnclearLabelsError(f"it has {len(text):,} characters")
    try:
        values = _yaml(text)
        if isinstance(values, str):
            values = [label.strip() for label in re.split(r"[,\n]", text)]
        return labels_from(values, key)
    except (ValueError, RecursionError) as error:
        raise UnclearLabelsError(" ".join(str(error).split())) from error


def labels_from(values: Any, key: str = "") -> tuple[str, ...]:
    """Labels from a list, from positions by label, or from labels by position; also below one of `KEYS`.

    Args:
        key: One of `KEYS`, under which ``values`` were found, and which tells how to read them.

    Raises:
        UnclearLabelsError: If it holds none, or could be read in two ways.
    """
    if isinstance(values, Mapping):
        if not key and (inner := _inner(values)):
            return _only(inner)
        return _of_mapping({str(name): value for name, value in values.items()}, key)
    if isinstance(values, list | tuple) and all(isinstance(row, Mapping) for row in values) and values:
        return _of_rows([{str(name).lower(): _text(value) for name, value in row.items()} for row in values])
    if not isinstance(values, list | tuple) or not all(isinstance(label, str) for label in values):
        raise UnclearLabelsError("it must hold a list of labels, labels by position, or positions by label")
    return tuple(values)


def _parsed(suffix: str, text: str) -> tuple[str, ...]:
    if suffix in (".yaml", ".yml"):
        return labels_from(_yaml(text))
    if suffix in (".csv", ".tsv"):
        return _of_table(text)
    if suffix == ".json" or text.lstrip().startswith(("[", "{")):
        return labels_from(json.loads(text, object_pairs_hook=distinct))
    return _of_lines([line.strip() for line in text.split("\n") if line.strip()])


def _yaml(text: str) -> Any:
    try:
        import yaml  # only where labels are YAML: engines run without it
    except ImportError as error:
        raise RecipeError(
            "labels in YAML need PyYAML, which is not installed; run: pip install 'batchcls[build]'"
        ) from error

    class Loader(yaml.BaseLoader):  # type: ignore[misc, unused-ignore]
        """Makes nothing but text, lists and objects, and so leaves labels such as `No` as they are."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            distinct([(name.value, None) for name, _ in node.value if isinstance(name, yaml.ScalarNode)])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML: {error}") from error


def _inner(values: Mapping[Any, Any]) -> dict[str, tuple[str, ...]]:
    """The labels below keys that tell of them; not labels that are called so themselves."""
    known = {str(name).lower(): value for name, value in values.items()}
    return {
        key: labels_from(known[key], key)
        for key in KEYS
        if isinstance(known.get(key), Mapping | list | tuple) and not isinstance(known[key], str)
    }


def _only(readings: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if len(set(readings.values())) > 1:
        shown = "; ".join(f"{key} {list(labels)}" for key, labels in readings.items())
        raise UnclearLabelsError(f"it holds labels more than once, and they differ: {shown}")
    return next(iter(readings.values()))


def _of_mapping(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    readings: dict[str, tuple[str, ...]] = {}
    if key not in NAME_TO_POSITION and all(isinstance(value, str | int) for value in values.values()):
        readings |= _ordered("labels by position", [(name, str(value)) for name, value in values.items()])
    if key not in POSITION_TO_NAME:
        readings |= _ordered("positions by label", [(_text(value), name) for name, value in values.items()])
    if not readings:
        raise UnclearLabelsError(
            f"its positions are not 0 to {len(values) - 1}, each once; it holds {_shown(values.items())}"
        )
    return _one_way(readings)


def _one_way(readings: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if len(set(readings.values())) > 1:
        ways = "; or ".join(f"{way} {list(labels)}" for way, labels in readings.items())
        raise UnclearLabelsError(f"it can be read in two ways: {ways}; name the labels as a list instead")
    return next(iter(readings.values()))


def _text(value: Any) -> str:
    """A label or a position; nothing of what else stands there, which a small file can make endless."""
    return str(value) if isinstance(value, str | int | float) else ""


def _ordered(way: str, pairs: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """The names of pairs of position and name in order, if the positions are 0, 1, ..., each once."""
    places = dict(pairs)
    if len(places) != len(pairs) or set(places) != set(map(str, range(len(pairs)))) or not pairs:
        return {}
    return {way: tuple(places[str(place)] for place in range(len(pairs)))}


def _of_lines(lines: Sequence[str]) -> tuple[str, ...]:
    before = [(found[1], found[2]) for line in lines if (found := _NUMBERED.fullmatch(line))]
    after, ending = (
        [(found[1][::-1], found[2][::-1]) for line in lines if (found := pattern.fullmatch(line[::-1]))]
        for pattern in (_NUMBERED_AFTER, _ENDING_IN_NUMBER)
    )
    if lines and len(lines) in (len(before), len(after)):
        pairs = before if len(before) == len(lines) else after
        if readings := _ordered("labels by position", pairs):
            return _one_way(readings | _ordered("positions by label", [(name, place) for place, name in pairs]))
        numbers = ", ".join(place for place, _ in pairs[:12]) + ", ..." * (len(pairs) > 12)
        raise UnclearLabelsError(
            f"its lines are numbered {numbers}, not 0 to {len(pairs) - 1}, each once; number them so, or "
            "name the labels as a JSON list"
        )
    readings = _ordered("", ending) if len(ending) == len(lines) else {}
    if readings and len(set(readings[""])) == len(lines):  # else the numbers are all that tells the labels apart
        return readings[""]
    return tuple(lines)


def _of_table(text: str) -> tuple[str, ...]:
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and lines[0].lower().startswith("sep="):
        lines = lines[1:]
    first = lines[0] if lines else ""
    delimiter = max(",;\t", key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)]
    if not rows or len({len(row) for row in rows}) != 1:
        raise UnclearLabelsError("its rows differ in length, or there are none")
    names = [name.lower() for name in rows[0]]
    if any(name in (*_POSITION_COLUMNS, *_NAME_COLUMNS) for name in names):
        if len(set(names)) != len(names):
            raise UnclearLabelsError(f"its columns {str(names)[:_LONGEST]} are not different from one another")
        return _of_rows([dict(zip(names, row, strict=True)) for row in rows[1:]])
    if 1 in (len(rows), len(names)):
        return tuple(chain.from_iterable(rows))
    numbers = list(map(str, range(1, len(names) + 1)))
    whole = [dict(zip(numbers, row, strict=True)) for row in rows]
    return _of_rows(whole if any(_positions(whole)) else whole[1:])  # the first row may name the columns


def _positions(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Columns of the positions 0, 1, ..., each once."""
    return [name for name in (rows[0] if rows else ()) if _ordered("", [(row.get(name, ""), "") for row in rows])]


def _of_rows(rows: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Labels from a table with a column of positions and one of labels, or one of labels alone."""
    if rows and len(rows) * len(rows[0]) > _LARGEST_BYTES:
        raise UnclearLabelsError(
            f"it is a table of {len(rows):,} rows and {len(rows[0]):,} columns, most of them empty"
        )
    columns = {name: [row.get(name, "") for row in rows] for name in rows[0]} if rows else {}
    positions = _chosen(_positions(rows), _POSITION_COLUMNS)
    names = _chosen([name for name in columns if [name] != positions], _NAME_COLUMNS)
    if len(names) == 1 and len(columns) == 1:
        return tuple(columns[names[0]])
    if len(positions) != 1 or len(names) != 1:
        raise UnclearLabelsError(
            f"of its columns {str(list(columns))[:_LONGEST]} one must hold the positions 0 to {len(rows) - 1}, "
            "each once, and one the labels: name them index and label"
        )
    (labels,) = _ordered("", list(zip(columns[positions[0]], columns[names[0]], strict=True))).values()
    return labels


def _chosen(candidates: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those of ``candidates`` that are known by name; all of them if none is."""
    return [name for name in candidates if name in known] or list(candidates)


def _shown(items: Any) -> str:
    few = [f"{name!r}: {reprlib.repr(value) if _text(value) else type(value).__name__}" for name, value in [*items][:4]]
    return f"{{{', '.join(few)}{', ...' if len(items) > 4 else ''}}}"
