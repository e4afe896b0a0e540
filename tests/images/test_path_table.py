"""Tables of paths in CSV and Parquet: any names, their roots, columns to keep, and what a stranger's table may not."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.errors import SlidesError
from batchcls.images.sources import open_source
from batchcls.images.sources.base import SourceOptions
from batchcls.records import METADATA_KEY, Slide
from batchcls.storage.file_names import printable
from tests.conftest import ROOT
from tests.images.test_path_list import PATHS, listed

KINDS = ("csv", "parquet")


def table(folder: Path, kind: str, columns: dict[str, Sequence[Any]], **record: Any) -> Path:
    path = folder / f"table.{kind}"
    if kind == "parquet":
        metadata = {METADATA_KEY: json.dumps(record)} if record else None
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path, row_group_size=7)
        return path
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.mark.parametrize("kind", KINDS)
@given(paths=st.lists(PATHS, unique=True, min_size=1, max_size=20))
def test_any_names_come_back_in_order(kind: str, paths: list[bytes]) -> None:
    names = [os.fsdecode(path) for path in paths]
    with TemporaryDirectory() as folder:
        slides = listed(table(Path(folder), kind, {"path": list(map(printable, names)), "x": range(len(names))}))
    assert [slide.path for slide in slides] == [name for name in names if not name.startswith("s3:")]
    assert {(slide.root, slide.refusal) for slide in slides} == {(folder, None)}


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_is_one_slide_once_and_rows_without_a_path_are_counted(kind: str, tmp_path: Path) -> None:
    paths = ["a.jpg", None, "./a.jpg", "", "../x.jpg", "/etc/passwd", "http://169.254.169.254/x", "b.jpg", "b.jpg"]
    source = open_source([table(tmp_path, kind, {"path": paths})])
    with closing(source):
        slides = list(source)
    assert [slide.path for slide in slides] == ["a.jpg", "../x.jpg", "/etc/passwd", "http://169.254.169.254/x", "b.jpg"]
    assert [slide.path for slide in slides if slide.refusal is None] == ["a.jpg", "b.jpg"]
    assert source.skipped == {"listed already": 2, "row without a path": 2}
    assert (source.count, source.complete) == (5, True)


@pytest.mark.parametrize("kind", KINDS)
def test_roots_of_a_table_lie_below_its_folder_or_the_one_named(kind: str, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    roots = ["in", "", str(tmp_path / "lists" / "in"), str(tmp_path / "out"), "../out", "/etc", "s3://bucket/x", "/"]
    place = table(tmp_path / "lists", kind, {"root": roots, "path": ["a.jpg"] * len(roots)})

    with closing(open_source([place])) as source:
        slides = list(source)
        assert {slide.root for slide in slides} <= set(source.roots)
    assert [slide.root for slide in slides if slide.refusal is None] == [
        str(tmp_path / "lists" / "in"),
        str(tmp_path / "lists"),
    ]
    assert len(slides) == len(roots) - 1  # the relative and the absolute spelling are one folder
    sound = [slide.root for slide in listed(place, root=tmp_path) if slide.refusal is None]
    assert sound == [str(tmp_path / "in"), str(tmp_path), str(tmp_path / "lists" / "in"), str(tmp_path / "out")]
    remote = [slide for slide in listed(place, allow_remote=True) if slide.refusal is None]
    assert remote[-1] == Slide("s3://bucket/x", "a.jpg")


def test_paths_below_a_root_do_not_leave_it(tmp_path: Path) -> None:
    paths = ["./a.jpg", "b/../../x.jpg", "/etc/passwd", "a\\x00b.jpg", "."]
    slides = listed(table(tmp_path, "parquet", {"root": ["in"] * len(paths), "path": paths}))
    assert [slide.path for slide in slides if slide.refusal is None] == ["a.jpg"]
    assert len(slides) == len(paths)
    assert {slide.root for slide in slides} == {str(tmp_path / "in")}


def test_a_list_of_a_folder_names_the_slides_as_the_folder_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b\udcff.jpg"):
        (tmp_path / "slides").mkdir(exist_ok=True)
        (tmp_path / "slides" / name).touch()
    slides = listed(Path("slides"))
    rows = {"root": pa.array(["slides"] * 2).dictionary_encode(), "path": [printable(slide.path) for slide in slides]}
    place = table(Path(), "parquet", {**rows, "offset": pa.array([None, 5], pa.int64())}, roots=["slides"], list="0")
    again = listed(place)
    assert again == slides
    assert [slide.offset for slide in again] == [None, 5]
    with closing(open_source([place])) as source:
        assert source.roots == ("slides",)


def test_a_record_that_does_not_name_all_roots_is_one_line(tmp_path: Path) -> None:
    place = table(tmp_path, "parquet", {"root": ["a", "b"], "path": ["1.jpg", "2.jpg"]}, roots=["a"])
    with pytest.raises(SlidesError, match=r"the root '.*b', which its own record does not name"):
        listed(place)


def test_too_many_roots_are_one_line(tmp_path: Path) -> None:
    roots = [str(number) for number in range(10_001)]
    for kind in KINDS:
        with pytest.raises(SlidesError, match="more than 10,000 roots"):
            open_source([table(tmp_path, kind, {"root": roots, "path": roots})])


def test_kept_columns_have_the_types_of_the_table(tmp_path: Path) -> None:
    values = {
        "text": pa.array(["P1", None]),
        "code": pa.array(["a", "b"]).dictionary_encode(),
        "number": pa.array([1, None], pa.int32()),
        "share": pa.array([0.5, None]),
        "half": pa.array([0.5, None], pa.float16()),
        "fresh": pa.array([True, False]),
        "day": pa.array([date(2024, 2, 29), None]),
        "at": pa.array([datetime(2024, 2, 29, tzinfo=UTC), None], pa.timestamp("ns", "Europe/Berlin")),
        "seconds": pa.array([datetime(2024, 2, 29), None], pa.timestamp("s")),
    }
    place = table(tmp_path, "parquet", {"path": ["a.jpg", "b.jpg"], **values})
    with closing(open_source([place], SourceOptions(keep=tuple(values)))) as source:
        slides = list(source)
    kinds = ("string", "string", "int32", "double", "float", "bool", "date32[day]", "timestamp[ns, tz=UTC]")
    assert [str(field.type) for field in source.kept] == [*kinds, "timestamp[ms]"]
    day, second = 19_782, 86_400
    assert slides[0].kept == ("P1", "a", 1, 0.5, 0.5, True, day, day * second * 10**9, day * second * 1000)
    assert slides[1].kept == (None, "b", None, None, None, False, None, None, None)


def test_kept_columns_of_csv_are_texts(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'\xef\xbb\xbfpatient;path\r\n007;a.jpg\r\n;b.jpg\r\n"";"c\nd.jpg"\r\n')
    slides = listed(tmp_path / "t.csv", keep=("patient",))
    assert [(slide.path, slide.kept) for slide in slides] == [
        ("a.jpg", ("007",)),
        ("b.jpg", (None,)),
        ("c\nd.jpg", ("",)),
    ]


def test_tables_have_the_columns_to_keep_in_one_type(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    numbers = table(tmp_path, "parquet", {"path": ["a.jpg"], "n": [1]})
    words = table(tmp_path / "a", "csv", {"path": ["b.jpg"], "n": [1]})
    with pytest.raises(SlidesError, match="n int64 and n string"):
        open_source([numbers, words], SourceOptions(keep=("n",)))
    with pytest.raises(SlidesError, match=r"--keep m: the table '.*' has no column 'm', but 'path', 'n'"):
        open_source([numbers], SourceOptions(keep=("m",)))
    with pytest.raises(SlidesError, match="--keep n: no table is among"):
        open_source([tmp_path], SourceOptions(keep=("n",)))


def doubled_columns() -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table([pa.array(["a.jpg"]), pa.array(["b.jpg"])], names=["path", "path"]), content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "does not name the columns"),
        ("t.csv", b'"file";"x"\n1;2\n', "has no column .path. of texts, but .file., .x."),
        ("t.csv", b"file,label\na.jpg,x\n", "has no column 'path' of texts, but 'file', 'label'"),
        ("t.csv", b"path,path\na,b\n", "more than one column 'path'"),
        ("t.parquet", doubled_columns(), "more than one column 'path'"),
        ("t.csv", b"path,x\na.jpg\n", "Expected 2 columns, got 1"),
        ("t.csv", b"path\n" + b"x" * (3 << 20), "straddl"),
        ("t.csv", "path\na.jpg\n".encode("utf-16"), "UTF-16"),
        ("t.csv", b"path,n\na.jpg,\xff\n", "Invalid UTF8"),
        ("t.parquet", b"no Parquet file", "Parquet magic bytes not found"),
        ("t.parquet", b"PAR1", "too small|smaller than"),
    ],
)
def test_what_is_no_table_of_paths_is_one_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    keep = ("n",) if b",n\n" in content else ()
    with pytest.raises(SlidesError, match=message) as error:
        listed(tmp_path / name, keep=keep)
    assert "\n" not in str(error.value)


def test_a_parquet_file_without_paths_says_which_columns_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": [1], "image": ["a.jpg"]}), tmp_path / "t.parquet")
    with pytest.raises(SlidesError, match=r"the column 'path' of the table '.*' holds int64; it must hold texts"):
        open_source([tmp_path / "t.parquet"])


def test_a_table_cut_off_is_one_line_after_its_sound_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path,n\n" + b"".join(b"%d.jpg,1\n" % number for number in range(200_000)) + b"x")
    with closing(open_source([tmp_path / "t.csv"])) as source:
        slides = iter(source)
        for _ in range(100_000):
            next(slides)
        with pytest.raises(SlidesError, match=r"the table .* cannot be read: .*Expected 2 columns"):
            list(slides)


def test_texts_of_a_parquet_file_that_are_not_utf8_are_no_traceback(tmp_path: Path) -> None:
    raw = pa.array([b"\xff.jpg", b"b.jpg"])
    damaged = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"path": damaged, "n": damaged}), tmp_path / "t.parquet")
    assert [slide.path for slide in listed(tmp_path / "t.parquet")] == ["\udcff.jpg", "b.jpg"]
    with pytest.raises(SlidesError, match="cannot be read"):
        listed(tmp_path / "t.parquet", keep=("n",))


MEMORY = """
import sys
from pathlib import Path
from batchcls.images.sources import open_source
from batchcls.machine import peak_memory_bytes  # which is not the parent's, as ru_maxrss may be
source = open_source([Path(sys.argv[1])])
slides = iter(source)
next(slides)
before = peak_memory_bytes()
count = 1 + sum(1 for _ in slides)
print(count, peak_memory_bytes() - before)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_never_held_whole(kind: str, tmp_path: Path) -> None:
    rows = 1_600_000
    paths = pa.table({"path": pa.array([f"{number * 7919 % 10_000_019:0100d}.jpg" for number in range(rows)])})
    place = tmp_path / f"t.{kind}"
    if kind == "csv":
        pyarrow.csv.write_csv(paths, place)
    else:
        pq.write_table(paths, place, row_group_size=rows, compression="none", use_dictionary=False)
    process = subprocess.run(
        [sys.executable, "-c", MEMORY, place],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    count, grown_bytes = map(int, process.stdout.split())
    assert count == rows
    assert grown_bytes < 100 << 20  # of 166 MB of paths; 26 MB are for the digests of what was listed
