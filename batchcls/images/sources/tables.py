"""Tables among what the user names, each opened as a list of paths, or as the images that it holds."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from batchcls.errors import SlidesError
from batchcls.images.sources.base import Source, SourceOptions
from batchcls.images.sources.combined import combined
from batchcls.images.sources.fetched_file import FetchedFile
from batchcls.images.sources.list_record import ListShard, is_list
from batchcls.images.sources.parquet_columns import image_columns
from batchcls.images.sources.path_table import PATH_COLUMN, PathTableSource, columns_text, is_text
from batchcls.images.sources.places import Place
from batchcls.images.sources.shard import ShardSource
from batchcls.images.sources.table_files import CsvTable, open_table
from batchcls.storage.shards import Shard
from batchcls.storage.urls import is_url

OpenImages = Callable[[Path, SourceOptions], Source]


def open_tables(places: Sequence[Place], options: SourceOptions, open_images: OpenImages | None = None) -> Source:
    """The images of tables, one table after the other.

    Args:
        places: Paths and URLs of tables.
        options: How to list.
        open_images: Opens a Parquet file that holds images, instead of their paths.

    Raises:
        SlidesError: If a table cannot be read, or has no column of paths.
    """
    selected = options.shard if len(places) == 1 else None
    source = combined(lambda place: _open_table(str(place), options, selected, open_images), places)
    is_shard = isinstance(source, PathTableSource) and source.is_shard
    return ShardSource(source, options.shard) if options.shard and not is_shard else source


def _open_table(place: str, options: SourceOptions, shard: Shard | None, open_images: OpenImages | None) -> Source:
    """The images of one table; those of ``shard`` only, if the table is a list."""
    with ExitStack() as opened:
        copy = opened.enter_context(closing(FetchedFile(place, options.timeout_s))) if is_url(place) else None
        path = copy.path if copy else Path(place)
        table = open_table(path, place)
        if shard and is_list(table):
            table = ListShard(table, shard)
        columns = image_columns(table.schema) if not isinstance(table, CsvTable) else []
        if columns and open_images and not copy:
            return open_images(path, options)
        if columns and copy:
            raise SlidesError(
                f"{place!r} holds images, in its column {columns[0]!r}, which are read from disks only; copy it to one"
            )
        if PATH_COLUMN not in table.schema.names or not is_text(table.schema.field(PATH_COLUMN).type):
            if PATH_COLUMN in table.schema.names:
                kind = table.schema.field(PATH_COLUMN).type
                raise SlidesError(f"the column {PATH_COLUMN!r} of the table {place!r} holds {kind}; it must hold texts")
            raise SlidesError(
                f"the table {place!r} has no column {PATH_COLUMN!r} of texts, but {columns_text(table.schema.names)}; "
                "name the column of the images' paths so"
            )
        source = PathTableSource(place, table, options, copy)
        opened.pop_all()
        return source
