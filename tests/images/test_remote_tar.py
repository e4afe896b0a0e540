"""Tar files in object stores: the rows that they have on a disk, by ranges."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from batchcls.errors import SlidesError
from batchcls.images.formats.refusal import RefusedError
from batchcls.images.sources import open_readers, open_source, read_slide, slide_exists
from batchcls.records import Slide
from tests.commandline import PATIENCE_S, invoked
from tests.object_servers import BUCKET, fill_bucket, moto_server, s3_environment

LARGEST = 1 << 30
URL = f"s3://{BUCKET}/shards"


def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20 + number, 10)).save(stream, "JPEG")
    return stream.getvalue()


IMAGES = {
    **{f"a/{number:03}.jpg": jpeg(number) for number in range(150)},
    "big.jpg": jpeg(1) + bytes(3 << 20),
    "empty.jpg": b"",
    "text.txt": b"",
    "last.jpg": jpeg(199),
}


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in IMAGES.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), 1_700_000_000
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


TAR = tar()


@pytest.fixture(scope="module", autouse=True)
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An S3 server on this machine, which the environment names, with shards."""
    with moto_server(tmp_path_factory.mktemp("s3") / "log.txt") as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment(endpoint).items():
            patch.setenv(name, value)
        cut = TAR[: TAR.index(IMAGES["last.jpg"]) + 10]
        fill_bucket(endpoint, {"shards/0.tar": TAR, "shards/cut.tar": cut, "shards/none.tar": b"none"})
        yield


def test_members_are_those_that_were_put_in(tmp_path: Path) -> None:
    with closing(open_source([f"{URL}/0.tar"])) as source:
        slides = {slide.path.removeprefix("0.tar/"): slide for slide in source}

    assert source.roots == (URL,)
    assert list(slides) == [name for name in IMAGES if name != "text.txt"]
    assert (source.unlisted, source.skipped) == ([], {"not an image": 1})
    for name in ("a/000.jpg", "a/149.jpg", "big.jpg", "last.jpg"):
        assert read_slide(slides[name], LARGEST) == IMAGES[name]
        assert read_slide(Slide(URL, f"0.tar/{name}"), LARGEST) == IMAGES[name]
    assert not slide_exists(Slide(URL, "0.tar/gone.jpg"))
    assert not slide_exists(Slide(URL, "gone.tar/a.jpg"))
    with closing(open_readers()) as readers, closing(readers.group_reader(10**9)) as group:
        group.start(list(slides.values())[100:154], LARGEST)
        result = group.result()
        assert [slide.path for slide in result.alone] == ["0.tar/big.jpg", "0.tar/empty.jpg"]
        assert {slide.path: bytes(data) for slide, data, _ in result.read} == {
            f"0.tar/{name}": IMAGES[name]
            for name in [*(f"a/{number:03}.jpg" for number in range(100, 150)), "last.jpg"]
        }
        with closing(readers.reader(PATIENCE_S)) as reader:
            assert reader.open(slides["big.jpg"]).read(0, LARGEST) == IMAGES["big.jpg"]


def test_a_run_has_the_rows_that_it_has_on_a_disk(tmp_path: Path, tiny_engine: Path) -> None:
    (tmp_path / "0.tar").write_bytes(TAR)
    tables = []
    for number, place in enumerate((f"{URL}/0.tar", tmp_path / "0.tar")):
        out = tmp_path / f"{number}.parquet"
        result = invoked(place, "--out", out, "--engine", tiny_engine)
        assert result.exit_code == 0, result.output
        tables.append(pq.read_table(out).drop_columns("root"))
    assert tables[0].to_pylist() == tables[1].to_pylist()
    assert len(tables[0]) == 153


def test_what_is_cut_or_gone_or_none_is_told(tmp_path: Path) -> None:
    with closing(open_source([f"{URL}/{name}.tar" for name in ("cut", "none", "gone")])) as source:
        slides = list(source)

    assert [slide.path for slide in slides[-2:]] == ["cut.tar/empty.jpg", "cut.tar/last.jpg"]
    assert [place.partition(": ")[2][:20] for place in source.unlisted] == [
        "it ends early: it ha",
        "it is no tar file: i",
        "No such file or dire",
    ]
    with pytest.raises(RefusedError, match="unreadable: its archive ends"):
        read_slide(slides[-1], LARGEST)


def test_a_url_with_credentials_is_refused() -> None:
    with pytest.raises(SlidesError, match="holds a user name") as error:
        open_source([f"s3://me:secret@{BUCKET}/0.tar"])
    assert "secret" not in str(error.value)
