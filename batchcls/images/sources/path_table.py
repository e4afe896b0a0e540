"""Tables of images: a CSV or Parquet file with a path or URL in each row, and columns that the predictions carry on."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from batchcls.errors import SlidesError
from batchcls.images.sources.base import SourceOptions
from batchcls.images.sources.fetched_file import FetchedFile
from batchcls.images.sources.list_record import ListShard
from batchcls.images.sources.listed_slides import ListedSlides, base_of, roots_of
from batchcls.images.sources.table_files import TableFile, table_errors
from batchcls.records import Slide
from batchcls.storage.column_values import exact_values
from batchcls.storage.file_names import original

PATH_COLUMN, _ROOT, _OFFSET = "path", "root", "offset"
_PLACE = pa.schema([("size_bytes", pa.int64()), ("modified", pa.timestamp("us", "UTC")), (_OFFSET, pa.int64())])
"""Columns of a list of `batchcls list`, by which images in archives are found without a search for their names."""
_NOWHERE = (None, None, None)
_MOST_ROOTS = 10_000
_LONGEST_TEXT = 1 << 16
"""Largest length in bytes of a text that the predictions carry on."""
_MOST_NAMES = 20
"""Most names of columns in a message."""


class PathTableSource:
    """A `batchcls.images.sources.base.Source` of the images that a table names, in the order of its rows.

    Args:
        place: Path or URL of the table.
        table: The same, open.
        options: How to list.
        copy: What the table is read from, if it lies elsewhere; closed by `close`.

    Raises:
        SlidesError: If the table has no column of paths, or lacks one that is to be kept.
    """

    def __init__(self, place: str, table: TableFile, options: SourceOptions, copy: FetchedFile | None = None) -> None:
        self.count = 0
        self.complete = False
        self.skipped: Counter[str] = Counter()
        self.unlisted: list[str] = []
        self._name = place
        self._table = table
        self._copy = copy
        self.is_shard = isinstance(table, ListShard)
        """Whether the slides are those of one shard only."""
        self._listed = ListedSlides(base_of(place, options), allow_remote=options.allow_remote)
        names = table.schema.names
        if missing := [name for name in (PATH_COLUMN, *options.keep) if name not in names]:
            asked = f"--keep {missing[0]}: " if missing[0] != PATH_COLUMN else ""
            raise SlidesError(
                f"{asked}the table {self._name!r} has no column {missing[0]!r}, but {columns_text(names)}"
            )
        if twice := [name for name in (PATH_COLUMN, _ROOT, *options.keep) if names.count(name) > 1]:
            raise SlidesError(f"the table {self._name!r} has more than one column {twice[0]!r}")
        self.kept = pa.schema([_kept_field(table.schema.field(name)) for name in options.keep])
        self._columns = [
            name for name in (PATH_COLUMN, _ROOT) if name in names and is_text(table.schema.field(name).type)
        ]
        self._place = [
            field.name for field in _PLACE if field.name in names and table.schema.field(field.name) == field
        ]
        if _OFFSET not in self._place:
            self._place = []
        self.roots = self._all_roots() if _ROOT in self._columns else roots_of([self._listed])

    def __iter__(self) -> Iterator[Slide]:
        return chain.from_iterable(self.chunks())

    def chunks(self) -> Iterator[Sequence[Slide]]:
        """The slides of each batch of rows."""
        roots = frozenset(self.roots)
        columns = [*self._columns, *self._place, *self.kept.names]
        for batch in self._table.batches(list(dict.fromkeys(columns))):
            with table_errors(self._name):
                slides = [slide for slide in self._slides(batch) if slide]
            if unknown := {slide.root for slide in slides} - roots:
                raise SlidesError(
                    f"the table {self._name!r} has rows with the root {unknown.pop()!r}, which its own record does not "
                    "name; write it again"
                )
            self.count += len(slides)
            self.skipped["row without a path"] += len(batch) - len(slides)
            yield slides
        self.complete = True

    def waiting(self) -> tuple[str, float] | None:
        return None

    def close(self) -> None:
        if self._copy:
            self._copy.close()

    def _slides(self, batch: pa.RecordBatch) -> list[Slide | None]:
        """The slide of each row; None for a row that names none."""
        paths = texts(batch[PATH_COLUMN])
        roots = texts(batch[_ROOT]) if _ROOT in self._columns else [None] * len(paths)
        named = [
            self._listed.slide_of_row(original(root or ""), original(path)) if path else None
            for root, path in zip(roots, paths, strict=True)
        ]
        if not self._place and not len(self.kept):
            return named
        places = _places(batch) if self._place else [_NOWHERE] * len(batch)
        kept = list(zip(*self._kept_values(batch), strict=True)) if len(self.kept) else [()] * len(batch)
        return [
            slide and Slide(slide.root, slide.path, *place, values, None, slide.refusal, slide.within)
            for slide, place, values in zip(named, places, kept, strict=True)
        ]

    def _kept_values(self, batch: pa.RecordBatch) -> Iterator[list[Any]]:
        for field in self.kept:
            values = exact_values(_cast(batch[field.name], field.type))
            if pa.types.is_string(field.type) and max(map(len, filter(None, values)), default=0) > _LONGEST_TEXT:
                raise ValueError(f"--keep {field.name}: a text has more than {_LONGEST_TEXT:,} characters")
            yield values

    def _all_roots(self) -> tuple[str, ...]:
        """The roots of all rows: as the table's record tells, or else by reading the column."""
        recorded = recorded_roots(self._table.record)
        named = dict.fromkeys(recorded) if recorded is not None else self._scanned_roots()
        if len(named) > _MOST_ROOTS:
            raise SlidesError(
                f"the table {self._name!r} has more than {_MOST_ROOTS:,} roots; write folders that have most of the "
                f"images below them into its column {_ROOT!r}, and the rest of each name into {PATH_COLUMN!r}"
            )
        roots = [self._listed.root_of_row(original(root)) for root in named if root]
        return tuple(dict.fromkeys([*roots, *(roots_of([self._listed]) if "" in named else ())]))

    def _scanned_roots(self) -> dict[str, None]:
        named: dict[str, None] = {}
        for batch in self._table.batches([_ROOT]):
            with table_errors(self._name):
                named |= dict.fromkeys(root or "" for root in texts(batch[_ROOT].unique()))
            if len(named) > _MOST_ROOTS:
                break
        return named


def _places(batch: pa.RecordBatch) -> list[tuple[int | None, int | None, int | None]]:
    """Size, time of change in nanoseconds and offset of images in archives; of other files they are read anew."""
    columns = [
        batch[name].cast(pa.int64()).to_pylist() if name in batch.schema.names else [None] * len(batch)
        for name in _PLACE.names
    ]
    return [
        _NOWHERE if offset is None else (size_bytes, None if modified_us is None else modified_us * 1000, offset)
        for size_bytes, modified_us, offset in zip(*columns, strict=True)
    ]


def recorded_roots(record: Mapping[str, Any]) -> list[str] | None:
    """The roots of a list of `batchcls list`, or of a predictions file, by its record; None if it tells none."""
    roots = record.get("roots")
    if roots is None and isinstance(identity := record.get("identity"), dict):
        roots = identity.get("slides")
    if not isinstance(roots, list) or not all(isinstance(root, str) for root in roots):
        return None
    return roots


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds texts."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def texts(column: pa.Array) -> list[str | None]:
    """Texts as file names: bytes that are not UTF-8 stand as surrogate escapes."""
    if isinstance(column, pa.DictionaryArray):
        words = texts(column.dictionary)
        return [None if code is None else words[code] for code in column.indices.to_pylist()]
    # Not as texts, for a hostile file may have others than UTF-8 in them.
    return [value if value is None else os.fsdecode(value) for value in column.cast(pa.large_binary()).to_pylist()]


def _kept_field(field: pa.Field) -> pa.Field:
    """A column to keep, in the type that it has in the predictions; as it is, if none fits."""
    kind = field.type
    if is_text(kind):
        kind = pa.string()
    elif pa.types.is_float16(kind):
        kind = pa.float32()
    elif pa.types.is_date(kind):
        kind = pa.date32()
    elif pa.types.is_timestamp(kind):
        kind = pa.timestamp("ms" if kind.unit == "s" else kind.unit, kind.tz and "UTC")
    return pa.field(field.name, kind)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    return column.cast(kind)


def columns_text(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(map(repr, names[:_MOST_NAMES])) + more
