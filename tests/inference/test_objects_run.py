"""Runs over an object store: rows as from a disk, whatever a network does; what it never does is lost or doubled."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from batchcls import Engine
from batchcls.cli import main
from batchcls.images.formats.refusal import largest_bytes
from batchcls.storage.transient_errors import is_transient
from tests.commandline import invoked, partial
from tests.conftest import ROOT, draw
from tests.object_servers import (
    BUCKET,
    DENIED,
    Answer,
    Fault,
    FaultProxy,
    fill_bucket,
    moto_server,
    s3_client,
    s3_named,
    seeded_faults,
)

ENGINE = ROOT / "engines" / "all4-googlenet"
COUNT = 120
ROOT_URL = f"s3://{BUCKET}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, of an image that is cut, of a file that is none, and of an empty one."""
    folder = tmp_path_factory.mktemp("slides")
    for number in range(COUNT):
        draw(folder / f"{number % 3}" / f"{number:02d}.jpg", number)
    draw(folder / "large.bmp", 1, (700, 600))
    (folder / "cut.jpg").write_bytes((folder / "0" / "00.jpg").read_bytes()[:900])
    (folder / "text.png").write_bytes(b"no image")
    (folder / "empty.jpg").touch()
    return folder


@pytest.fixture(scope="module")
def endpoint(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto_server(tmp_path_factory.mktemp("s3") / "log.txt") as endpoint, s3_named(endpoint):
        contents = {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}
        fill_bucket(endpoint, contents)
        yield endpoint


@pytest.fixture(scope="module")
def from_disk(files: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return rows(run(files, tmp_path_factory.mktemp("disk") / "o.parquet"))


def run(place: str | Path, out: Path, *options: str) -> Path:
    result = attempt(place, out, *options)
    assert result.exit_code == 0, result.output
    return out


def attempt(place: str | Path, out: Path, *options: str) -> Result:
    return invoked(place, "--out", out, "--engine", ENGINE, "--backend", "null", *options)


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows but for what differs between a disk and a store."""
    table = pq.read_table(out).sort_by("path")
    return table.drop_columns([name for name in ("root", "modified") if name in table.column_names]).to_pylist()


def faulty(endpoint: str, choose: Callable[[str, str, int], Fault], out: Path, *options: str) -> Result:
    with FaultProxy(endpoint, choose) as proxy, s3_named(proxy.url):
        result = attempt(ROOT_URL, out, *options)
    assert proxy.faults
    return result


@pytest.mark.usefixtures("endpoint")
def test_rows_are_those_of_the_same_files_on_a_disk(from_disk: list[dict[str, Any]], tmp_path: Path) -> None:
    out = run(ROOT_URL, tmp_path / "o.parquet")

    assert rows(out) == from_disk
    assert pq.read_table(out)["root"].unique().to_pylist() == [ROOT_URL]
    assert f"resumed   {len(from_disk)} of the rows were done before" in attempt(ROOT_URL, out).output


def test_faults_of_a_network_change_no_row(endpoint: str, from_disk: list[dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    assert faulty(endpoint, seeded_faults(0.2), out).exit_code == 0

    table = pq.read_table(out)
    assert table.num_rows == len(from_disk)
    errors = [error for error in table["error"].to_pylist() if error and is_transient(error)]
    if errors:  # by chance the same object failed several times
        run(ROOT_URL, out)
    assert rows(out) == from_disk


def test_what_is_refused_again_and_again_is_a_row_that_the_next_run_does_again(
    endpoint: str, from_disk: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "o.parquet"
    result = faulty(endpoint, lambda method, path, number: DENIED if path.endswith("/07.jpg") else None, out)
    assert result.exit_code == 0, result.output
    assert "1 files could not be read this time; the same command reads them again" in result.output
    (error,) = [text for text in pq.read_table(out)["error"].to_pylist() if text and is_transient(text)]
    assert error == "unreadable: Remote I/O error: access is refused: 403 Forbidden (AccessDenied: Access Denied)"

    run(ROOT_URL, out)
    assert rows(out) == from_disk


def test_a_store_that_refuses_most_objects_ends_the_run_with_its_parts_kept(
    endpoint: str, from_disk: list[dict[str, Any]], tmp_path: Path
) -> None:
    out = tmp_path / "o.parquet"

    result = faulty(endpoint, lambda method, path, number: DENIED if path.endswith(".jpg") else None, out)
    assert result.exit_code == 1
    assert "of the last 100 files could not be read" in result.stderr
    assert "access is refused: 403 Forbidden" in result.stderr
    assert partial(out).is_dir()

    run(ROOT_URL, out)
    assert rows(out) == from_disk


def test_an_object_that_vanishes_is_a_row(endpoint: str, tmp_path: Path) -> None:
    gone = Answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
    out = tmp_path / "o.parquet"
    result = faulty(endpoint, lambda method, path, number: gone if path.endswith("/09.jpg") else None, out)

    assert result.exit_code == 0, result.output
    table = pq.read_table(out)
    (error,) = table.filter(pc.equal(table["path"], "0/09.jpg"))["error"].to_pylist()
    assert error.startswith("missing: ")


def test_a_row_tells_of_the_object_that_was_read(endpoint: str, files: Path, tmp_path: Path) -> None:
    """An object is replaced behind the listing, which has told another size."""
    fill_bucket(endpoint, {"0.jpg": (files / "0" / "00.jpg").read_bytes()}, "replaced")
    other = (files / "large.bmp").read_bytes()

    def choose(method: str, path: str, number: int) -> Fault:
        if path == "/replaced/0.jpg":
            s3_client(endpoint).put_object(Bucket="replaced", Key="0.jpg", Body=other)
        return None

    with FaultProxy(endpoint, choose) as proxy, s3_named(proxy.url):
        table = pq.read_table(run("s3://replaced/", tmp_path / "o.parquet"))
    assert table["width"].to_pylist() == [700]
    if "size_bytes" in table.column_names:
        assert table["size_bytes"].to_pylist() == [len(other)]


def test_an_object_larger_than_the_limit_is_refused(endpoint: str, files: Path, tmp_path: Path) -> None:
    sound = (files / "0" / "00.jpg").read_bytes()
    fill_bucket(endpoint, {"huge.jpg": sound + bytes(largest_bytes(10_000)), "0.jpg": sound}, "huge")

    table = pq.read_table(run("s3://huge", tmp_path / "o.parquet", "--max-pixels", "10000"))
    assert [error.split(":")[0] if error else None for error in table["error"].to_pylist()] == [None, "too large"]


@pytest.mark.usefixtures("endpoint")
def test_a_report_shows_pictures_of_the_store(tmp_path: Path) -> None:
    out = run(ROOT_URL, tmp_path / "o.parquet")
    page = tmp_path / "o.html"

    result = CliRunner().invoke(main, ["report", str(out), "--out", str(page)])
    assert result.exit_code == 0, result.output
    assert "data:image/jpeg;base64" in page.read_text()


@pytest.mark.usefixtures("endpoint")
def test_a_bucket_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    result = attempt("s3://nosuch", tmp_path / "o.parquet")

    assert result.exit_code == 1
    assert "there is no bucket of 's3://nosuch'" in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("endpoint")
def test_a_program_names_objects_as_it_names_files(from_disk: list[dict[str, Any]]) -> None:
    urls = [f"{ROOT_URL}/0/00.jpg", f"{ROOT_URL}/gone.jpg"]
    with Engine.load(ENGINE, device="cpu", backend="null") as engine:
        table = engine.predict(urls)
        assert engine.predict(urls[0])["probability"].to_pylist() == [from_disk[0]["probability"]]
    assert table["root"].to_pylist() == [f"{ROOT_URL}/0", ROOT_URL]
    assert table["probability"].to_pylist() == [from_disk[0]["probability"], None]
