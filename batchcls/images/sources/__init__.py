"""Sources of slides, which list slides, and functions that read their bytes in any process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path

from batchcls.errors import SlidesError
from batchcls.images.formats.refusal import RefusedError, check_file
from batchcls.images.sources.base import SlideReader, SlideReaders, Source, SourceOptions
from batchcls.images.sources.combined import combined
from batchcls.images.sources.distinct import DistinctSource
from batchcls.images.sources.files import FileReaders, file_exists, read_file
from batchcls.images.sources.folder import FolderSource
from batchcls.images.sources.object_readers import ObjectReaders, lasting_reader, open_object_process
from batchcls.images.sources.objects import ObjectSource
from batchcls.images.sources.parquet_images import open_images
from batchcls.images.sources.parquet_readers import ParquetReaders, read_row, row_exists
from batchcls.images.sources.path_list import PathListSource
from batchcls.images.sources.places import Place, PlaceKind, ReaderKind, place_kind, reader_kind
from batchcls.images.sources.readers import AnyReaders
from batchcls.images.sources.refused import RefusedReaders
from batchcls.images.sources.remote_tar_readers import RemoteTarReaders
from batchcls.images.sources.shard import ShardSource
from batchcls.images.sources.tables import open_tables
from batchcls.images.sources.tar_readers import TarReaders, member_exists, read_member
from batchcls.images.sources.tar_source import TarSource
from batchcls.records import Slide
from batchcls.storage.file_client import FileProcess
from batchcls.storage.file_names import spelling_below
from batchcls.storage.timeouts import READ_TIMEOUT_S, call_with_timeout
from batchcls.storage.transient_errors import TRANSIENT_ERRNOS
from batchcls.storage.urls import is_url


def _open_folders(places: Sequence[Place], options: SourceOptions) -> Source:
    return FolderSource(list(map(Path, places)), at_once=options.at_once, timeout_s=options.timeout_s)


def _open_tars(places: Sequence[Place], options: SourceOptions) -> Source:
    def opened(group: tuple[bool, list[str]]) -> Source:
        is_remote, tars = group
        process = open_object_process if is_remote else FileProcess
        return TarSource(tars, at_once=options.at_once, timeout_s=options.timeout_s, open_process=process)

    return combined(opened, [(remote, list(tars)) for remote, tars in groupby(map(str, places), is_url)])


def _open_lists(places: Sequence[Place], options: SourceOptions) -> Source:
    return combined(lambda place: PathListSource(place, options), places)


def _open_objects(places: Sequence[Place], options: SourceOptions) -> Source:
    return ObjectSource(list(map(str, places)), options)


# What opens the sources and the readers of each kind; those that need a library of their own import it when called.
_SOURCES: dict[PlaceKind, Callable[[Sequence[Place], SourceOptions], Source]] = {
    "files": _open_folders,
    "list": _open_lists,
    "objects": _open_objects,
    "table": partial(open_tables, open_images=open_images),
    "tar": _open_tars,
}
_READERS: dict[ReaderKind, Callable[[], SlideReaders]] = {
    "files": FileReaders,
    "objects": ObjectReaders,
    "refused": RefusedReaders,
    "tar": TarReaders,
    "remote tar": RemoteTarReaders,
    "parquet": ParquetReaders,
}
# What reads single slides in the calling thread, and looks whether they exist, where that starts no process.
_READ: dict[ReaderKind, Callable[[Slide, int], bytes]] = {"files": read_file, "tar": read_member, "parquet": read_row}
_EXISTS: dict[ReaderKind, Callable[[Slide], bool]] = {"files": file_exists, "tar": member_exists, "parquet": row_exists}

_EACH_ONCE: frozenset[PlaceKind] = frozenset(("files", "objects", "tar"))
"""Kinds of places whose source names no slide twice."""


def open_source(slides: Sequence[Place], options: SourceOptions | None = None) -> Source:
    """The slides of ``slides``, in their order.

    Args:
        slides: Folders, searched to any depth, and files; as text URLs, ``-`` for standard input, and ``@FILE``.
        options: How to list; None: as `SourceOptions` says.
    """
    options = options or SourceOptions()
    kinds = [(kind, list(places)) for kind, places in groupby(slides, place_kind)]
    shard = options.shard
    if shard and [kind for kind, _ in kinds] != ["table"]:  # tables select the shard's rows before they read the others
        options = replace(options, shard=None)
    source = combined(lambda kind: _SOURCES[kind[0]](kind[1], options), kinds)
    source = ShardSource(source, shard) if shard and not options.shard else source
    with ExitStack() as opened:
        opened.callback(source.close)
        if options.keep and not len(source.kept):
            raise SlidesError(
                f"--keep {','.join(options.keep)}: no table is among what was named, and only tables have columns"
            )
        opened.pop_all()
    names_each_once = _EACH_ONCE.issuperset(kind for kind, _ in kinds) and len(dict(kinds)) == len(kinds)
    return source if names_each_once else DistinctSource(source)


def open_readers() -> SlideReaders:
    """Readers of slides of any kind, one for each thread that reads many slides."""
    return AnyReaders(_READERS)


def read_slide(slide: Slide, limit_bytes: int, timeout_s: float = READ_TIMEOUT_S) -> bytes:
    """All bytes of one slide; any thread may call this function, also in a forked process.

    Args:
        slide: Slide to read.
        limit_bytes: Largest allowed size in bytes.
        timeout_s: How long the file system may take.

    Raises:
        OSError: If the slide cannot be read; a TimeoutError if it is not read in time.
        RefusedError: If the slide is no regular file, is empty, or is larger than ``limit_bytes``.
    """
    if read := _READ.get(reader_kind(slide)):
        return call_with_timeout(lambda: read(slide, limit_bytes), timeout_s)
    with _reader_of(slide, timeout_s) as reader:
        file = reader.open(slide)
        check_file(file.size_bytes, limit_bytes, is_regular=file.is_regular)
        return file.read(0, file.size_bytes)


def slide_exists(slide: Slide, timeout_s: float = READ_TIMEOUT_S) -> bool:
    """Whether a slide exists; True as well if the file system or the network does not tell."""
    try:
        if exists := _EXISTS.get(reader_kind(slide)):
            return call_with_timeout(lambda: exists(slide), timeout_s)
        with _reader_of(slide, timeout_s) as reader:
            reader.open(slide)
    except TimeoutError:
        return True
    except OSError as error:
        return error.errno in TRANSIENT_ERRNOS
    except RefusedError:
        return False
    return True


@contextmanager
def _reader_of(slide: Slide, timeout_s: float) -> Iterator[SlideReader]:
    """A context that yields a reader for one slide that is no file."""
    kind = reader_kind(slide)
    if kind in ("objects", "remote tar"):  # starting a process for each of many thumbnails would take long
        with lasting_reader(timeout_s, _READERS[kind]) as reader:
            yield reader
    else:
        with closing(open_readers()) as readers, closing(readers.reader(timeout_s)) as reader:
            yield reader


def slide_below(root: Path, path: str) -> Slide:
    """The slide below ``root`` for a path in a table of labels, in the spelling under which the file exists."""
    return Slide(str(root), spelling_below(root, path))
