"""Tables of labels as spreadsheets, Windows and other programs write them."""

import csv
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.errors import LabelsError
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.images.labels.table import read_label_table

UNICODE = (
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le with mark",
    "utf-16-be with mark",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
)
WORDS = st.text(st.sampled_from("abcé ü0123456789_-.,;|\t\"'\\/()"), max_size=12).filter(lambda text: text.strip(" \t"))


def encoded(text: str, encoding: str) -> bytes:
    name, _, marked = encoding.partition(" with ")
    return ("\ufeff" + text if marked else text).encode(name)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def values(table: pa.Table) -> dict[str, list[str | None]]:
    return {name: table[name].to_pylist() for name in table.column_names}


@given(
    rows=st.lists(st.tuples(WORDS, WORDS, st.one_of(st.just(""), WORDS)), min_size=1, max_size=8),
    encoding=st.sampled_from((*UNICODE, "cp1252")),
    delimiter=st.sampled_from(",;\t|"),
    line_end=st.sampled_from(("\n", "\r\n", "\r")),
    separator=st.sampled_from(("", "sep={}", '"sep={}"', "SEP={}")),
    blanks=st.lists(st.sampled_from(("", "{0}{0}", "  ", '""{0}""{0}""', "{0}", "{0}{0}{0}{0}")), max_size=3),
    quoting=st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
    ended=st.booleans(),
)
def test_one_table_is_read_from_any_dress(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    encoding: str,
    delimiter: str,
    line_end: str,
    separator: str,
    blanks: list[str],
    quoting: "csv._QuotingType",
    ended: bool,
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    writer.writerows([("Path", "label", "group"), *rows])
    head = separator.format(delimiter) + line_end if separator else ""
    tail = "".join(blank.format(delimiter) + line_end for blank in blanks)
    text = head + stream.getvalue() + tail
    text = text if ended else text.removesuffix(line_end)
    path = written(tmp_path_factory.mktemp("t") / "labels.csv", encoded(text, encoding))

    table, notes = read_label_table(path)

    assert values(table) == {
        "path": [name for name, _, _ in rows],
        "label": [label.strip() for _, label, _ in rows],
        "group": [group.strip() or None for _, _, group in rows],
    }
    assert bool(notes) == (encoding == "cp1252" and not text.isascii())


@pytest.mark.parametrize("text", ["\r\n\r\npath;label\r\n1.jpg;Pré-B\r\n;\r\n", "path;label\n1.jpg;Pré-B\n\x1a"])
def test_rows_in_which_nothing_stands_are_passed_over(tmp_path: Path, text: str) -> None:
    table, _ = read_label_table(written(tmp_path / "t.csv", text.encode()))

    assert values(table) == {"path": ["1.jpg"], "label": ["Pré-B"]}


def test_a_column_that_is_quoted_and_holds_another_separator_is_one(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", b'"path";"label";"seen by, on, and how"\n1.jpg;a;"x, y\nz"\n2.jpg;b;"x"\n')

    assert values(read_label_table(path)[0])["path"] == ["1.jpg", "2.jpg"]


def test_windows_1252_is_read_and_said(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "path;label\r\n1.jpg;Métamyélocyte\r\n".encode("cp1252"))

    table, notes = read_label_table(path)

    assert table["label"].to_pylist() == ["Métamyélocyte"]
    assert "read as Windows-1252: make sure that 'Métamyélocyte' is what it should say" in notes[0]


def test_labels_are_composed_whatever_system_wrote_them(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", "path,label,split\n1.jpg,Me\u0301ta \u00a0,train \n".encode())

    assert values(read_label_table(path)[0]) == {"path": ["1.jpg"], "label": ["M\u00e9ta"], "split": ["train"]}


def test_a_line_of_json_is_a_row(tmp_path: Path) -> None:
    path = written(tmp_path / "T.JSONL", b'{"path": "1.jpg", "label": "a"}\n{"label": "b", "path": "2.jpg", "n": 1}\n')

    table, _ = read_label_table(path)

    assert table["label"].to_pylist() == ["a", "b"]


def test_parquet_is_read_whatever_it_and_its_folder_are_called(tmp_path: Path) -> None:
    path = tmp_path / "split=test" / "labels.csv"
    path.parent.mkdir()
    pq.write_table(pa.table({"path": ["1.jpg"], "label": pa.array(["a"]).dictionary_encode()}), path)

    assert values(read_label_table(path)[0]) == {"path": ["1.jpg"], "label": ["a"]}


def spreadsheet() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    return stream.getvalue()


@pytest.mark.parametrize("name", ["t.xlsx", "t.csv"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (spreadsheet(), r"is a spreadsheet \(.xlsx, .ods\) or a ZIP file.*save it there as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512), r"is an old spreadsheet \(.xls\).*as CSV UTF-8"),
        (gzip.compress(b"path,label\n"), "is compressed; unpack it first"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "holds bytes that are no text"),
        (b"path,label\n1.jpg,a\0b\n", "holds bytes that are no text"),
        ("path,label\n1.jpg,é\n2.jpg,".encode() + b"\xe9\n", "cannot be read as a table"),
        (b"path,label\n1.jpg,\x81\n", "cannot be read as a table"),
        (b"\xff\xfep\0a", "cannot be read as a table|no column"),
    ],
    ids=["xlsx", "xls", "gzip", "jpeg", "NUL", "damaged UTF-8", "no Windows-1252", "cut UTF-16"],
)
def test_what_is_no_table_of_text_is_refused_in_a_line(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    with pytest.raises(LabelsError, match=reason) as refusal:
        LabeledImages.read(written(tmp_path / name, content))
    assert "\n" not in str(refusal.value)


def test_a_parquet_file_that_unfolds_to_all_memory_is_refused(tmp_path: Path) -> None:
    rows = 100_000
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["a" * 1_000_000])
    paths = pa.array([f"{number}.png" for number in range(rows)])
    pq.write_table(pa.table({"path": paths, "label": long}), tmp_path / "bomb.parquet")
    with pytest.raises(LabelsError, match="unfolds to more than"):
        read_label_table(tmp_path / "bomb.parquet")
