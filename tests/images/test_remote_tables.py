"""Lists and tables in an object store, and lists of objects, against an S3 server on this machine."""

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchcls.errors import SlidesError
from batchcls.images.sources import open_source, read_slide
from batchcls.images.sources.base import SourceOptions
from batchcls.records import Slide
from tests.commandline import invoked
from tests.conftest import draw
from tests.images.test_path_list import list_of, listed
from tests.object_servers import BUCKET, fill_bucket, moto_server, s3_environment

PLACE = f"s3://{BUCKET}/job"


def parquet(rows: dict[str, list[object]]) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table(rows), content)
    return content.getvalue()


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("s3")
    image = draw(folder / "a.jpg").read_bytes()
    rows: dict[str, list[object]] = {"path": ["a.jpg", "b/c.jpg", "../other.jpg", "/etc/passwd"], "n": [1, 2, 3, 4]}
    files = {
        **dict.fromkeys(("job/a.jpg", "job/b/c.jpg", "other.jpg"), image),
        "job/list.txt": f"a.jpg\n{PLACE}/b/c.jpg\ns3://{BUCKET}/other.jpg\n/etc/passwd".encode(),
        "job/files.parquet": parquet(rows),
        "job/files.csv": b"path,n\na.jpg,1\nb/c.jpg,2\n../other.jpg,3\n/etc/passwd,4\n",
        "job/images.parquet": parquet({"image": [image]}),
        "job/broken.parquet": b"PAR1 no table PAR1",
    }
    with moto_server(folder / "log.txt") as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment(endpoint).items():
            patch.setenv(name, value)
        fill_bucket(endpoint, files)
        yield


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("name", ["files.parquet", "files.csv", "@list.txt"])
def test_paths_are_below_the_folder_of_a_list_in_a_store(name: str, tmp_path: Path) -> None:
    place = f"@{PLACE}/{name[1:]}" if name.startswith("@") else f"{PLACE}/{name}"
    slides = listed(place)
    assert [slide for slide in slides if slide.refusal is None] == [Slide(PLACE, "a.jpg"), Slide(PLACE, "b/c.jpg")]
    assert len(slides) == 4
    assert read_slide(slides[1], 1 << 20).startswith(b"\xff\xd8")
    local = listed(place, root=tmp_path)
    assert (local[0].root, local[0].refusal) == (str(tmp_path), None)


@pytest.mark.usefixtures("bucket")
def test_what_cannot_be_fetched_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name, message in (
        ("none.csv", "cannot be read: No such file"),
        ("images.parquet", "holds images, in its column 'image', which are read from disks only"),
        ("broken.parquet", f"'{PLACE}/broken.parquet' has a footer of"),
    ):
        with pytest.raises(SlidesError, match=message):
            open_source([f"{PLACE}/{name}"])
    with closing(open_source([f"{PLACE}/files.csv"], SourceOptions(keep=("n",)))) as source:
        assert [slide.kept for slide in source] == [("1",), ("2",), ("3",), ("4",)]
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SlidesError) as error:
        open_source([f"s3://user:hunter2@{BUCKET}/files.csv"])
    assert "hunter2" not in str(error.value)


@pytest.mark.usefixtures("bucket")
def test_a_list_of_objects_is_classified_where_the_user_allows_it(tiny_engine: Path, tmp_path: Path) -> None:
    urls = [f"{PLACE}/a.jpg", f"{PLACE}/b/c.jpg", f"{PLACE}/gone.jpg", f"{PLACE}/a.jpg"]
    (tmp_path / "t.csv").write_text("path,n\n" + "".join(f"{url},{number}\n" for number, url in enumerate(urls)))
    options = ("--engine", tiny_engine, "--backend", "null", "--keep", "n", "--out")
    run = invoked(tmp_path / "t.csv", *options, tmp_path / "o.csv", "--allow-remote")
    assert run.exit_code == 0, run.output

    with (tmp_path / "o.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["root"], row["path"], row["n"]) for row in rows] == [
        ("", url, str(number)) for number, url in enumerate(urls[:3])
    ]
    assert [row["error"].partition(":")[0] for row in rows] == ["", "", "missing"]
    refused = invoked(tmp_path / "t.csv", *options, tmp_path / "x.csv")
    assert "errors    unreadable 3" in refused.output
    assert len(listed(list_of(tmp_path, "\n".join(urls).encode()), allow_remote=True)) == 3
