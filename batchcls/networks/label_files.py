"""Labels in the order of a network's outputs, from files and from texts in a file's metadata."""

import csv
import io
import json
import os
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from batchcls.errors import RecipeError
from batchcls.networks.label_values import (
    LONGEST_LIST,
    NAME_COLUMNS,
    NAME_TO_POSITION,
    POSITION_COLUMNS,
    POSITION_TO_NAME,
    UnclearLabelsError,
    labels_of_rows,
    only_reading,
    parse_labels,
    position_columns,
    reading_of_pairs,
)
from batchcls.storage.regular_file import object_with_distinct_names, read_text

_LARGEST_BYTES = 1 << 20
"""Largest size of a labels file, or of a text in the metadata of a file."""
_NUMBERED = re.compile(r"(\d+)(?:\s*[\s:;,=]|[.)]\s)\s*(\S.*)")
# Patterns for reversed lines: forwards, a long line of blanks would take quadratic time.
_NUMBERED_AFTER = re.compile(r"(\d+)(?:\s*[:;,=]|\s*\t)\s*(\S|\S.*\S)")
_ENDING_IN_NUMBER = re.compile(r"(\d+) +(.*\S)")


def read_labels(path: Path) -> tuple[str, ...]:
    """Labels from a file of JSON, YAML or CSV, or of text with one label per line, which may be numbered from 0.

    Raises:
        RecipeError: If the file cannot be read, does not hold labels, or can be read in two ways.
    """
    text = os.fspath(path)
    try:
        return _parsed(path, read_text(path, _LARGEST_BYTES, "utf-8-sig"))
    except UnclearLabelsError as error:
        raise RecipeError(f"labels file {text!r} cannot be used: {error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"labels file {text!r} is not UTF-8; save it in that encoding") from error
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"labels file {text!r} cannot be read: {reason}") from error


def parse_labels_text(text: str, key: str) -> tuple[str, ...]:
    """Labels from JSON, YAML, ``a,b,c``, or what Python prints for a list or dictionary.

    Args:
        text: A value in the metadata of a file.
        key: One of `LABEL_KEYS`, which has the text as its value.

    Raises:
        UnclearLabelsError: If the text holds no labels, or can be read in two ways.
    """
    if len(text) > _LARGEST_BYTES:
        raise UnclearLabelsError(f"it has {len(text):,} characters")
    try:
        values = _yaml(text)
        if isinstance(values, str):
            values = [label.strip() for label in re.split(r"[,\n]", text)]
        return parse_labels(values, key)
    except (ValueError, RecursionError) as error:
        raise UnclearLabelsError(" ".join(str(error).split())) from error


def _parsed(path: Path, text: str) -> tuple[str, ...]:
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return _labels_of_values(path, _yaml(text))
    if suffix in (".csv", ".tsv"):
        return _labels_of_table(text)
    if suffix == ".json" or text.lstrip().startswith(("[", "{")):
        return _labels_of_values(path, json.loads(text, object_pairs_hook=object_with_distinct_names))
    return _labels_of_lines([line.strip() for line in text.split("\n") if line.strip()])


def _labels_of_values(path: Path, values: Any) -> tuple[str, ...]:
    """The labels in ``values``; where they could be read in two ways, as the file's name says: ``class_to_idx.json``.

    Folders of numbers are such labels: ImageFolder gives the folder 10 the position 2.
    """
    key = path.stem.rpartition(".")[2].lower()
    try:
        return parse_labels(values)
    except UnclearLabelsError:
        if key not in (*NAME_TO_POSITION, *POSITION_TO_NAME):
            raise
        return parse_labels(values, key)


def _yaml(text: str) -> Any:
    try:
        import yaml  # only where labels are YAML: engines run without it
    except ImportError as error:
        raise RecipeError(
            "labels in YAML need PyYAML, which is not installed; run: pip install 'batchcls[build]'"
        ) from error

    class Loader(yaml.BaseLoader):  # type: ignore[misc, unused-ignore]
        """Loads only strings, lists and dictionaries, so that labels such as ``No`` do not become booleans."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            object_with_distinct_names(
                [(name.value, None) for name, _ in node.value if isinstance(name, yaml.ScalarNode)]
            )
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader=Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ValueError(f"it is no YAML: {error}") from error


def _labels_of_lines(lines: Sequence[str]) -> tuple[str, ...]:
    before = [(match[1], match[2]) for line in lines if (match := _NUMBERED.fullmatch(line))]
    after, ending = (
        [(match[1][::-1], match[2][::-1]) for line in lines if (match := pattern.fullmatch(line[::-1]))]
        for pattern in (_NUMBERED_AFTER, _ENDING_IN_NUMBER)
    )
    if lines and len(lines) in (len(before), len(after)):
        pairs = before if len(before) == len(lines) else after
        if readings := reading_of_pairs("labels by position", pairs):
            return only_reading(
                readings | reading_of_pairs("positions by label", [(name, place) for place, name in pairs])
            )
        numbers = ", ".join(place for place, _ in pairs[:12]) + ", ..." * (len(pairs) > 12)
        raise UnclearLabelsError(
            f"its lines are numbered {numbers}, not 0 to {len(pairs) - 1}, each once; number them so, or "
            "name the labels as a JSON list"
        )
    readings = reading_of_pairs("", ending) if len(ending) == len(lines) else {}
    if readings and len(set(readings[""])) == len(lines):  # otherwise the labels differ in these numbers alone
        return readings[""]
    return tuple(lines)


def _labels_of_table(text: str) -> tuple[str, ...]:
    lines = [line for line in text.split("\n") if line.strip()]
    if lines and lines[0].lower().startswith("sep="):
        lines = lines[1:]
    first = lines[0] if lines else ""
    delimiter = max(",;\t", key=first.count)
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter)]
    if not rows or len({len(row) for row in rows}) != 1:
        raise UnclearLabelsError("its rows differ in length, or there are none")
    names = [name.lower() for name in rows[0]]
    if any(name in (*POSITION_COLUMNS, *NAME_COLUMNS) for name in names):
        if len(set(names)) != len(names):
            raise UnclearLabelsError(f"its columns {str(names)[:LONGEST_LIST]} are not different from one another")
        return labels_of_rows([dict(zip(names, row, strict=True)) for row in rows[1:]])
    if 1 in (len(rows), len(names)):
        return tuple(chain.from_iterable(rows))
    numbers = list(map(str, range(1, len(names) + 1)))
    numbered = [dict(zip(numbers, row, strict=True)) for row in rows]
    return labels_of_rows(
        numbered if any(position_columns(numbered)) else numbered[1:]
    )  # the first row may name the columns
