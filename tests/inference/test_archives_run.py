"""Runs over archives: each image has the row that it has in a folder, and what is cut or damaged is told."""

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from batchcls.cli import main
from tests.commandline import invoked, partial, paused, stopping_command
from tests.conftest import draw

SAME = ("label", "probability", "probabilities", "error", "width", "height", "size_bytes", "modified")
"""Columns that an image has the same values in, wherever it is; those that a file of predictions has."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images of all kinds, sound and not, as a user has them."""
    folder = tmp_path_factory.mktemp("archives") / "images"
    (folder / "a" / "deep").mkdir(parents=True)
    for number in range(40):
        draw(folder / "a" / f"{number:02}.jpg", number, (64 + number, 48))
    draw(folder / "a" / "deep" / "large.bmp", 50, (900, 700))  # 1.9 MB, more than is read in a group
    draw(folder / "b.png", 51)
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.jpg").write_bytes((folder / "a" / "01.jpg").read_bytes()[:700])
    (folder / ("long" * 40 + ".jpg")).write_bytes((folder / "a" / "02.jpg").read_bytes())
    (folder / "ü.jpg").write_bytes((folder / "a" / "03.jpg").read_bytes())
    (folder / "notes.txt").write_text("passed by")
    for file in folder.rglob("*"):
        os.utime(file, (1_700_000_000, 1_700_000_000))  # GNU's format of tar files has whole seconds
    return folder


@pytest.fixture(scope="module")
def tar(images: Path) -> Path:
    """The same images in a tar file that GNU tar has written."""
    path = images.parent / "shard-0000.tar"
    subprocess.run(["tar", "-cf", path, "-C", images, "."], check=True)
    return path


@pytest.fixture(scope="module")
def parquet(images: Path) -> Path:
    """The same images in a Parquet file like those of Hugging Face."""
    files = sorted(file for file in images.rglob("*") if file.is_file() and file.suffix != ".txt")
    column = [{"bytes": file.read_bytes(), "path": str(file.relative_to(images))} for file in files]
    path = images.parent / "train-0000.parquet"
    pq.write_table(pa.table({"image": column, "label": [0] * len(files)}), path, row_group_size=20)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    return path


@pytest.fixture(scope="module")
def expected(images: Path, tiny_engine: Path) -> pa.Table:
    """The rows of the folder."""
    return rows_of(images, images.parent / "folder.parquet", tiny_engine)


def rows_of(slides: Path | str, out: Path, engine: Path, *options: str) -> pa.Table:
    result = invoked(slides, "--out", out, "--engine", engine, *options)
    assert result.exit_code == 0, result.output
    return pq.read_table(out)


def comparable(rows: pa.Table, archive: str = "") -> list[dict[str, object]]:
    """Rows without what differs from one place to another."""
    values = rows.select(["path", *(name for name in SAME if name in rows.column_names)]).to_pylist()
    return sorted((dict(row, path=row["path"].removeprefix(archive)) for row in values), key=lambda row: row["path"])


@pytest.mark.parametrize("options", [(), ("--processes", "2")])
def test_a_tar_file_has_the_rows_of_the_folder_that_it_was_made_from(
    tar: Path, expected: pa.Table, tiny_engine: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    rows = rows_of(tar, tmp_path / "o.parquet", tiny_engine, *options)

    assert comparable(rows, "shard-0000.tar/") == comparable(expected)
    assert len(rows) == 47
    assert set(rows["root"].cast(pa.string()).to_pylist()) == {str(tar.parent)}


@pytest.mark.parametrize("options", [(), ("--processes", "2")])
def test_a_parquet_file_has_the_rows_of_the_folder_that_it_was_made_from(
    parquet: Path, expected: pa.Table, tiny_engine: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    rows = rows_of(parquet, tmp_path / "o.parquet", tiny_engine, *options)

    assert comparable(rows, "train-0000.parquet/") == comparable(expected)
    assert set(rows["root"].cast(pa.string()).to_pylist()) == {str(parquet.parent)}


def test_folders_tar_and_parquet_files_are_classified_together_and_shown_in_a_report(
    images: Path, tar: Path, parquet: Path, expected: pa.Table, tiny_engine: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "o.parquet", tmp_path / "o.html"
    arguments = (images, tar, parquet, "--out", out, "--engine", tiny_engine)

    result = invoked(*arguments)
    report = CliRunner().invoke(main, ["report", str(out), "--out", str(page)])

    assert (result.exit_code, report.exit_code) == (0, 0), result.output + report.output
    rows = pq.read_table(out)
    assert len(rows) == 3 * len(expected)
    for prefix in ("shard-0000.tar/", "train-0000.parquet/"):
        assert comparable(rows.filter(pc.starts_with(rows["path"], prefix)), prefix) == comparable(expected)
    assert page.read_text().count("data:image/") > 3


def test_a_list_of_members_of_archives_is_classified_as_they_are(
    tar: Path, parquet: Path, expected: pa.Table, tiny_engine: Path, tmp_path: Path
) -> None:
    files = tmp_path / "files.parquet"
    listing = CliRunner().invoke(main, ["list", str(tar), str(parquet), "--out", str(files)])

    rows = rows_of(files, tmp_path / "o.parquet", tiny_engine, "--root", str(tar.parent))

    assert listing.exit_code == 0, listing.output
    for prefix in ("shard-0000.tar/", "train-0000.parquet/"):
        assert comparable(rows.filter(pc.starts_with(rows["path"], prefix)), prefix) == comparable(expected)


def test_a_list_keeps_names_of_members_that_no_file_could_have(tiny_engine: Path, tmp_path: Path) -> None:
    image = draw(tmp_path / "drawn.jpg").read_bytes()
    names = ["/tmp/a.jpg", "b//c.jpg", "../up.jpg"]  # noqa: S108
    with tarfile.open(tmp_path / "odd.tar", "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(image)
            archive.addfile(member, io.BytesIO(image))
    listing = CliRunner().invoke(main, ["list", str(tmp_path / "odd.tar"), "--out", str(tmp_path / "files.parquet")])
    (tmp_path / "list.txt").write_text("".join(f"odd.tar/{name}\n" for name in names))

    for place in (tmp_path / "files.parquet", f"@{tmp_path / 'list.txt'}"):
        rows = rows_of(place, tmp_path / f"{Path(str(place)).stem}-o.parquet", tiny_engine)
        assert sorted(rows["path"].to_pylist()) == sorted(f"odd.tar/{name}" for name in names)
        assert rows["error"].null_count == len(names), rows["error"].to_pylist()
    assert listing.exit_code == 0, listing.output


def test_a_run_over_a_tar_file_goes_on_where_it_was_killed(
    tar: Path, expected: pa.Table, tiny_engine: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o.parquet"
    arguments = (tar, "--out", out, "--engine", tiny_engine, "--batch-size", "4")
    first = subprocess.Popen(stopping_command(*arguments), stderr=-3)
    with paused(first):
        first.kill()
    first.wait()

    rows = rows_of(tar, out, tiny_engine, "--batch-size", "4")

    assert comparable(rows, "shard-0000.tar/") == comparable(expected)
    assert not partial(out).exists()
    assert "resumed   47 of the rows" in invoked(tar, "--out", out, "--engine", tiny_engine).output


def test_a_tar_file_that_is_cut_has_rows_for_what_there_is_and_is_told_until_it_is_whole(
    tar: Path, expected: pa.Table, tiny_engine: Path, tmp_path: Path
) -> None:
    cut, out = tmp_path / "cut.tar", tmp_path / "o.parquet"
    with tarfile.open(tar) as archive:
        # The order of the members is that of the file system, so that any of the images may be the last.
        last = [member for member in archive if member.name.endswith(".jpg") and member.size > 10][-1]
    whole = tar.read_bytes()
    cut.write_bytes(whole[: last.offset_data + 10])
    arguments = (cut, "--out", out, "--engine", tiny_engine)

    result = invoked(*arguments, "--strict")

    assert result.exit_code == 3
    assert f"cut.tar: it ends early: it has {cut.stat().st_size:,} bytes" in result.output
    errors = dict(zip(*pq.read_table(out).select(["path", "error"]).to_pydict().values(), strict=True))
    assert errors[f"cut.tar/{last.name.removeprefix('./')}"] == (
        f"unreadable: its archive ends {last.size - 10:,} bytes before it does; it has been cut, or is being written"
    )

    cut.write_bytes(whole)  # it has arrived in full
    assert invoked(*arguments).exit_code == 0
    assert comparable(pq.read_table(out), "cut.tar/") == comparable(expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.tar.gz", b"", "gunzip"),
        ("x.tgz", b"", "gunzip"),
        ("x.tar.zst", b"", "unzstd"),
        ("x.tar", b"\x1f\x8b" + bytes(600), "it is compressed; unpack it first: gunzip"),
        ("x.tar", b"", "it has no bytes"),
        ("x.tar", b"no tar file", "it is no tar file: it begins with b'no tar f'"),
        ("x.tar", b"no tar file" * 99, "it is no tar file: it begins with b'no tar f'"),
        ("x.tar", bytes(10240), "no image was found"),
    ],
)
def test_what_is_no_tar_file_ends_the_run_in_one_line(
    name: str, content: bytes, message: str, tiny_engine: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)

    result = invoked(tmp_path / name, "--out", tmp_path / "o.parquet", "--engine", tiny_engine)

    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_folder_that_holds_archives_alone_says_how_they_are_read(
    tar: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "0.tar").write_bytes(tar.read_bytes())

    result = invoked(tmp_path / "shards", "--out", tmp_path / "o.parquet", "--engine", tiny_engine)

    assert result.exit_code == 1
    assert "1 archive" in result.output
    assert f"*.tar is read where it is named: batchcls run {tmp_path}/shards/*.tar" in result.output
