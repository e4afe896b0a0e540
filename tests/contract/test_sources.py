"""What every source of slides promises; each one, and what it is made from, stands in `SOURCES`."""

import io
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchcls.images.formats.refusal import RefusedError
from batchcls.images.sources import open_readers, open_source, read_slide, slide_exists
from batchcls.images.sources.base import SlideReader, Source, SourceOptions
from batchcls.images.sources.places import Place
from batchcls.records import Slide
from batchcls.storage.file_names import original, printable
from batchcls.storage.urls import is_url
from tests.commandline import PATIENCE_S
from tests.object_servers import BUCKET, fill_bucket, moto_server, s3_named

SEED_BYTES = bytes(range(256))
FILES = {
    "a/1.jpg": SEED_BYTES * 3,
    "a/2.png": b"",
    "b/c/3.tif": SEED_BYTES * 9_000,
    "b/\udcff.jpg": b"a name that is not UTF-8",
    "4.bmp": b"4",
}
"""What each source holds."""
LARGEST = 1 << 30


def folder(files: dict[str, bytes], path: Path) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def tar(files: dict[str, bytes], path: Path) -> Path:
    path.mkdir()
    with tarfile.open(path / "slides.tar", "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000
            archive.addfile(member, io.BytesIO(content))
    return path / "slides.tar"


def path_list(files: dict[str, bytes], path: Path) -> str:
    folder(files, path)
    (path / "list.txt").write_bytes(b"\n".join(map(os.fsencode, files)))
    return f"@{path / 'list.txt'}"


def path_table(files: dict[str, bytes], path: Path) -> Path:
    folder(files, path)
    pq.write_table(pa.table({"path": list(map(printable, files))}), path / "files.parquet")
    return path / "files.parquet"


def objects(files: dict[str, bytes], path: Path) -> str:
    fill_bucket(os.environ["AWS_ENDPOINT_URL"], {f"{path.name}/{printable(name)}": files[name] for name in files})
    return f"s3://{BUCKET}/{path.name}"


def parquet(files: dict[str, bytes], path: Path) -> Path:
    path.mkdir()
    images = [{"bytes": content, "path": os.fsencode(name)} for name, content in files.items()]
    with_names = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.binary())]))
    fields = [with_names.field("bytes"), pa.array(with_names.field("path")).view(pa.string())]
    column = pa.StructArray.from_arrays(fields, ["bytes", "path"])
    pq.write_table(pa.table({"image": column}), path / "slides.parquet", row_group_size=2)
    return path / "slides.parquet"


def remote_tar(files: dict[str, bytes], path: Path) -> str:
    archive = tar(files, path)
    fill_bucket(os.environ["AWS_ENDPOINT_URL"], {f"{path.name}/{archive.name}": archive.read_bytes()})
    return f"s3://{BUCKET}/{path.name}/{archive.name}"


Made = Callable[[dict[str, bytes], Path], Place]
SOURCES: dict[str, Made] = {
    "folder": folder,
    "list": path_list,
    "objects": objects,
    "parquet": parquet,
    "table": path_table,
    "tar": tar,
    "remote tar": remote_tar,
}
"""By kind, a function that makes what SLIDES can name out of files, below a folder."""


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An S3 server on this machine, which the environment names."""
    with moto_server(tmp_path_factory.mktemp("s3") / "log.txt") as endpoint, s3_named(endpoint):
        yield


@pytest.fixture(params=SOURCES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param in ("objects", "remote tar"):
        request.getfixturevalue("s3")
    return SOURCES[request.param](FILES, tmp_path / "slides")


@pytest.fixture
def slides(place: Place) -> dict[str, Slide]:
    with closing(open_source([place])) as source:
        return {name_in(place, slide.path): slide for slide in source}


@pytest.fixture
def reader() -> Iterator[SlideReader]:
    with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
        yield reader


def name_in(place: Place, path: str) -> str:
    """The name in `FILES` of a slide, whose path begins with the archive's name, if it is in one; a key is UTF-8."""
    if is_url(str(place)) and not str(place).endswith(".tar"):
        return original(path)
    return path.removeprefix(f"{Path(place).name}/")


def rest(source: Source) -> Sequence[str]:
    return [slide.path for slide in source]


@pytest.mark.parametrize("at_once", [True, False])
def test_every_slide_comes_once_and_is_counted(place: Place, at_once: bool) -> None:
    with closing(open_source([place], SourceOptions(at_once=at_once))) as source:
        paths = [name_in(place, path) for path in rest(source)]
        assert sorted(paths) == sorted(FILES)
        assert (source.count, source.complete, source.unlisted) == (len(FILES), True, [])
        assert source.waiting() is None


def test_a_slide_names_a_root_of_its_source(place: Place) -> None:
    with closing(open_source([place])) as source:
        assert {slide.root for slide in source} <= set(source.roots)


def test_the_order_is_the_same_each_time(place: Place) -> None:
    orders = []
    for _ in range(3):
        with closing(open_source([place])) as source:
            orders.append(rest(source))
    assert orders[0] == orders[1] == orders[2]


def test_closing_ends_it_whatever_has_been_listed_and_twice_is_harmless(place: Place) -> None:
    for wanted in range(3):
        source = open_source([place])
        iterator = iter(source)
        for _ in range(wanted):
            next(iterator)
        source.close()
        source.close()


def test_bytes_are_those_that_were_put_in(slides: dict[str, Slide]) -> None:
    for path, content in FILES.items():
        if content:
            assert read_slide(slides[path], LARGEST) == content
        assert slide_exists(slides[path])


def test_a_reader_reads_any_part_of_one_slide_after_another(slides: dict[str, Slide], reader: SlideReader) -> None:
    for path, content in FILES.items():
        slide = reader.open(slides[path])
        assert (slide.is_regular, slide.size_bytes) == (True, len(content))
        assert slide.modified_ns is None or slide.modified_ns > 0
        assert content.startswith(slide.first_bytes)
        assert bool(slide.first_bytes) == bool(content)
        for offset in (0, 1, len(content) // 2, len(content), len(content) + 1):
            for length in (0, 1, 300, len(content)):
                assert slide.read(offset, length) == content[offset : offset + length]


def test_a_slide_that_is_gone_is_an_error_of_the_operating_system(
    slides: dict[str, Slide], reader: SlideReader
) -> None:
    slide = slides["4.bmp"]
    gone = Slide(slide.root, slide.path.replace("4.bmp", "gone.jpg"))
    with pytest.raises(FileNotFoundError):
        read_slide(gone, LARGEST)
    with pytest.raises(FileNotFoundError):
        reader.open(gone)
    assert not slide_exists(gone)
    assert reader.open(slides["4.bmp"]).read(0, 1) == b"4"


def test_a_slide_that_is_empty_or_too_large_is_refused_before_it_is_read(slides: dict[str, Slide]) -> None:
    with pytest.raises(RefusedError, match="empty: it has no bytes"):
        read_slide(slides["a/2.png"], LARGEST)
    with pytest.raises(RefusedError, match="too large: it has 768 bytes"):
        read_slide(slides["a/1.jpg"], 767)


def test_threads_read_at_one_time_each_by_its_own_reader(slides: dict[str, Slide]) -> None:
    def contents(paths: Sequence[str]) -> list[bytes]:
        with closing(readers.reader(PATIENCE_S)) as reader:
            return [reader.open(slides[path]).read(0, LARGEST) for path in paths]

    order = list(FILES) * 20
    with closing(open_readers()) as readers, ThreadPoolExecutor(8) as pool:
        for read in pool.map(contents, [order] * 8):
            assert read == [FILES[path] for path in order]
    assert readers.peak_memory_bytes >= 0


def test_readers_close_from_another_thread_and_twice(slides: dict[str, Slide]) -> None:
    readers = open_readers()
    reader = readers.reader(PATIENCE_S)
    assert reader.open(slides["4.bmp"]).size_bytes == 1
    for _ in range(2):
        reader.close()
        readers.close()


def test_a_forked_process_reads_and_slides_travel_to_a_spawned_one(slides: dict[str, Slide]) -> None:
    read_slide(slides["4.bmp"], LARGEST)  # whatever this starts must not keep the children from reading
    for way in ("fork", "spawn"):
        with get_context(way).Pool(2) as pool:
            contents = pool.starmap(read_slide, [(slides[path], LARGEST) for path in FILES if FILES[path]])
        assert contents == [content for content in FILES.values() if content]


def test_what_is_no_regular_file_is_told_and_never_waited_for(tmp_path: Path, reader: SlideReader) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    slide = Slide(str(tmp_path), "fifo.jpg")
    with pytest.raises(RefusedError, match="no regular file"):
        read_slide(slide, LARGEST)
    assert not reader.open(slide).is_regular
    assert not slide_exists(slide)
