"""Images with labels that people gave them, by class folders or in a table of paths and labels."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from batchcls.errors import LabelsError
from batchcls.images.labels.class_folders import folder_labels
from batchcls.images.labels.grouping import groups_of_paths
from batchcls.images.labels.name_patterns import SPLITS_BY_NAME
from batchcls.images.labels.table import COLUMNS, read_label_table
from batchcls.images.sources import open_source
from batchcls.storage.file_names import printable

_MOST_NAMES = 3
_MOST_CHARS = 300


@dataclass(frozen=True, slots=True)
class LabeledImages:
    """Image files with a label each."""

    root: Path
    """Folder that the paths are relative to."""
    table: pa.Table
    """Columns of strings: ``path``, without duplicates, and ``label``; also ``group`` and ``split`` (train, val or
    test) if they are known."""
    unlabeled: int = 0
    """Number of images outside of all class folders, or outside of all folders that the user named as parts."""
    notes: tuple[str, ...] = ()
    """Sentences for the user on how a table was read."""

    @classmethod
    def read(cls, source: Path, group_by: str = "", split_folders: str = "", known: Collection[str] = ()) -> Self:
        """Read labels from a folder of class folders, or from a table with the columns path and label.

        Args:
            source: Folder with classes, see `folder_labels`; or a table, see `read_label_table`, with paths relative
                to its own folder.
            group_by: Column of the table, or regular expression on paths; the group is the text that the expression,
                or its first group, matches.
            split_folders: Folders that hold a split each; see `folder_labels`.
            known: Labels of an engine or model; folders with these names are classes.

        Raises:
            LabelsError: If there is no labeled image, or folders, table or ``group_by`` cannot be interpreted.
        """
        if source.is_dir():
            labeled, columns = cls._of_folder(source, split_folders, known)
        elif split_folders:
            raise LabelsError(
                f"--split-folders is for a folder; {str(source)!r} is a table: say in its column split which part each "
                "image is in"
            )
        else:
            labeled, columns = cls._of_file(source, group_by)
        if not len(labeled.table):
            raise LabelsError(
                f"{str(source)!r} holds no labeled image; it must hold a folder of images for each class, "
                "or be a table with a row for each image"
            )
        if group_by and group_by not in columns:
            groups = groups_of_paths(labeled.table["path"], group_by)
            labeled = replace(labeled, table=_with_group(labeled.table, groups))
        return labeled

    def of_split(self, split: str | None, source: Path) -> pa.Table:
        """The rows of ``split``; for None, the rows of all splits, or all rows if there are no splits.

        Raises:
            LabelsError: If there are no such rows; the message names ``source``.
        """
        if "split" not in self.table.column_names:
            if split:
                raise LabelsError(
                    f"--split {split} was asked for; {str(source)!r} names no splits; leave it out, or say which "
                    "of its folders they are: --split-folders"
                )
            return self.table
        parts = self.table["split"]
        rows = self.table.filter(pc.equal(parts, split) if split else pc.is_valid(parts))
        if not len(rows):
            counts = {str(item["values"]): item["counts"] for item in pc.value_counts(parts).to_pylist()}
            raise LabelsError(f"{str(source)!r} has no image in --split {split or 'train|val|test'}: {counts}")
        return rows

    @classmethod
    def _of_folder(cls, folder: Path, split_folders: str, known: Collection[str]) -> tuple[Self, Sequence[str]]:
        """The images of class folders, and an empty list of columns."""
        listing = open_source([folder])
        paths = [printable(slide.path) for slide in listing]
        if listing.unlisted:
            raise LabelsError(f"not every folder could be listed: {', '.join(listing.unlisted[:_MOST_NAMES])}")
        images = folder_labels(str(folder), paths, split_folders, known)
        columns = {"path": images.paths, "label": images.labels}
        if images.splits is not None:
            columns["split"] = images.splits
        table = pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
        return cls(folder, table, images.unlabeled), ()

    @classmethod
    def _of_file(cls, path: Path, group_by: str) -> tuple[Self, Sequence[str]]:
        """The images of a table, and the names of its columns."""
        table, notes = read_label_table(path)
        names = table.column_names
        if missing := [name for name in COLUMNS[:2] if name not in names]:
            raise LabelsError(
                f"{str(path)!r} has no column {' and no '.join(map(repr, missing))}; it has {str(names)[:_MOST_CHARS]}"
            )
        if group_by in names and group_by != "group":
            try:
                table = _with_group(table, table[group_by].cast(pa.string()))
            except pa.ArrowException as error:
                raise LabelsError(f"{str(path)!r} cannot be grouped by {group_by!r}: {error}") from error
        table = table.select([name for name in COLUMNS if name in table.column_names])
        return cls(path.parent, _checked(table, path), notes=tuple(notes)), names


def _with_group(table: pa.Table, groups: pa.Array | pa.ChunkedArray) -> pa.Table:
    ungrouped = table.drop_columns("group") if "group" in table.column_names else table
    return ungrouped.append_column("group", groups)


def _checked(table: pa.Table, path: Path) -> pa.Table:
    """``table`` with its splits renamed to train, val and test.

    Raises:
        LabelsError: If a row lacks a value, a path is repeated, or a split has another name.
    """
    required = [name for name in table.column_names if name != "split"]
    for name in required:
        if lacking := table[name].null_count:
            raise LabelsError(f"{str(path)!r} has {lacking:,} rows without a {name}; fill them in, or leave them out")
    counted = pc.value_counts(table["path"])
    twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
    if len(twice):
        raise LabelsError(f"{str(path)!r} names {len(twice):,} paths more than once{_examples(twice)}")
    if "split" in table.column_names:
        split = pc.utf8_lower(table["split"])
        strange = pc.unique(split).filter(pc.invert(pc.is_in(pc.unique(split), pa.array([*SPLITS_BY_NAME, None]))))
        if len(strange):
            raise LabelsError(f"{str(path)!r} has splits{_examples(strange)}; use train, val and test")
        names = pa.array(list(SPLITS_BY_NAME)), pa.array(list(SPLITS_BY_NAME.values()))
        parts = names[1].take(pc.index_in(split, names[0]))
        table = table.set_column(table.schema.get_field_index("split"), "split", parts)
    return table


def _examples(values: pa.Array | Sequence[str]) -> str:
    return ": " + ", ".join(repr(str(value)) for value in values[:_MOST_NAMES])
