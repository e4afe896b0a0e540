"""Images and what people say they are: class folders, or a table of paths and labels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from batchcls.discover import Listing
from batchcls.errors import LabelsError
from batchcls.file_names import printable

_PARTS_CALLED = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "holdout"), "test"),
}
_COLUMNS = ("path", "label", "group", "split")
_LONGEST_HEADER = 1 << 16
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Labelled:
    """Image files with a label each."""

    root: Path
    """What the paths are relative to."""
    table: pa.Table
    """``path`` and ``label``; ``group`` and ``split`` (train, val or test) where they are known. All strings; no path
    stands twice."""
    unlabelled: int = 0
    """Images beside the class folders, not below one."""

    @classmethod
    def read(cls, source: Path, group_by: str = "") -> Self:
        """Read labels from a folder of class folders, or from a CSV or Parquet file with the columns path and label.

        Args:
            source: A folder's own folders are the classes; or, where all of them are called like train, val or test,
                those inside them. A file's paths are relative to the folder that it stands in.
            group_by: A column of the file, or a regular expression that finds the group in a path: what its first
                group matches, or all of it.

        Raises:
            LabelsError: If there is nothing, or something that is not understood.
        """
        found = cls._of_folder(source) if source.is_dir() else cls._of_file(source, group_by)
        if not len(found.table):
            raise LabelsError(
                f"{str(source)!r} holds no labelled image; it must hold a folder of images for each class, "
                "or be a table with a row for each image"
            )
        if group_by and group_by not in _columns_of(source):
            groups = _groups(found.table["path"], group_by)
            kept = found.table.drop_columns("group") if "group" in found.table.column_names else found.table
            found = cls(found.root, kept.append_column("group", groups), found.unlabelled)
        return found

    @classmethod
    def _of_folder(cls, folder: Path) -> Self:
        listing = Listing([folder])
        paths = [printable(slide.path) for slide in listing]
        if listing.unlisted:
            raise LabelsError(f"not every folder could be listed: {', '.join(listing.unlisted[:_SHOWN])}")
        tops = {path.partition("/")[0] for path in paths if "/" in path}
        in_parts = bool(tops) and all(top.lower() in _PARTS_CALLED for top in tops)
        depth = 1 if in_parts else 0
        named = [(path, path.split("/")) for path in paths]
        rows = [(path, parts) for path, parts in named if len(parts) > depth + 1]
        columns = {"path": [path for path, _ in rows], "label": [parts[depth] for _, parts in rows]}
        if in_parts:
            columns["split"] = [_PARTS_CALLED[parts[0].lower()] for _, parts in rows]
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        return cls(folder, table, len(paths) - len(rows))

    @classmethod
    def _of_file(cls, path: Path, group_by: str) -> Self:
        table = _read_table(path)
        if len(set(table.column_names)) < len(table.column_names):
            raise LabelsError(f"{str(path)!r} has columns of one name: {table.column_names}")
        if missing := [name for name in _COLUMNS[:2] if name not in table.column_names]:
            raise LabelsError(
                f"{str(path)!r} has no column {' and no '.join(map(repr, missing))}; it has {table.column_names}"
            )
        if group_by and group_by in table.column_names and group_by != "group":
            kept = table.drop_columns("group") if "group" in table.column_names else table
            table = kept.append_column("group", kept[group_by])
        try:
            table = pa.table({name: table[name].cast(pa.string()) for name in _COLUMNS if name in table.column_names})
            # 'ALL' and ' ALL' are one class to whoever wrote it.
            table = table.set_column(1, "label", pc.utf8_trim_whitespace(table["label"]))
        except pa.ArrowException as error:
            raise LabelsError(f"{str(path)!r} cannot be used: {error}") from error
        return cls(path.parent, _checked(table, path))


def _read_table(path: Path) -> pa.Table:
    """Its columns that have a name; those that are known under it whatever their case."""
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else _read_csv(path)
    except (pa.ArrowException, OSError) as error:
        mend = "" if path.suffix == ".parquet" else "; a CSV file must be UTF-8, with the columns' names first"
        raise LabelsError(f"{str(path)!r} cannot be read as a table of labels: {error}{mend}") from error
    names = [name.strip() for name in table.column_names]
    names = [name.lower() if name.lower() in _COLUMNS else name for name in names]
    # What pandas writes an index under, and Excel an empty column.
    named = [position for position, name in enumerate(names) if name]
    return table.select(named).rename_columns([names[position] for position in named])


def _read_csv(path: Path) -> pa.Table:
    """All as text, for a patient may be called 007."""
    with path.open("rb") as stream:
        header = stream.readline(_LONGEST_HEADER)
    parsing = pa.csv.ParseOptions(delimiter=max(",;\t", key=lambda mark: header.count(mark.encode())))
    with pa.csv.open_csv(path, parse_options=parsing) as stream:
        as_text = dict.fromkeys(stream.schema.names, pa.string())
    # Only an empty field is missing: a class may well be called NA or null.
    options = pa.csv.ConvertOptions(column_types=as_text, strings_can_be_null=True, null_values=[""])
    return pa.csv.read_csv(path, parse_options=parsing, convert_options=options)


def _columns_of(source: Path) -> Sequence[str]:
    return () if source.is_dir() else tuple(map(str, _read_table(source).column_names))


def _checked(table: pa.Table, path: Path) -> pa.Table:
    whole = [name for name in table.column_names if name != "split"]
    for name in whole:
        if lacking := table[name].null_count:
            raise LabelsError(f"{str(path)!r} has {lacking:,} rows without a {name}; fill them in, or leave them out")
    counted = pc.value_counts(table["path"])
    twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    if len(twice):
        raise LabelsError(f"{str(path)!r} names {len(twice):,} paths more than once{_examples(twice)}")
    if "split" in table.column_names:
        split = pc.utf8_lower(table["split"])
        strange = pc.unique(split).filter(pc.invert(pc.is_in(pc.unique(split), pa.array([*_PARTS_CALLED, None]))))
        if len(strange):
            raise LabelsError(f"{str(path)!r} has splits{_examples(strange)}; use train, val and test")
        names = pa.array(list(_PARTS_CALLED)), pa.array(list(_PARTS_CALLED.values()))
        parts = names[1].take(pc.index_in(split, names[0]))
        table = table.set_column(table.schema.get_field_index("split"), "split", parts)
    return table


def _groups(paths: pa.ChunkedArray, pattern: str) -> pa.Array:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise LabelsError(f"--group-by {pattern!r} is neither a column nor a regular expression: {error}") from error
    listed = paths.to_pylist()
    matches = [expression.search(path) for path in listed]
    if without := [path for path, match in zip(listed, matches, strict=True) if match is None]:
        raise LabelsError(
            f"--group-by {pattern!r} finds nothing in {len(without):,} of {len(listed):,} paths{_examples(without)}"
        )
    found = [match[1] if expression.groups else match[0] for match in matches if match]
    if any(group is None for group in found):
        raise LabelsError(f"the first group of --group-by {pattern!r} does not take part in every match")
    return pa.array(found, pa.string())


def _examples(values: pa.Array | Sequence[str]) -> str:
    return ": " + ", ".join(repr(str(value)) for value in values[:_SHOWN])
