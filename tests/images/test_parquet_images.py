"""Parquet files of images as a source: any writer's, and nothing worse than a row's reason from a hostile one."""

import io
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from batchcls.errors import SlidesError
from batchcls.images.formats.refusal import RefusedError
from batchcls.images.sources import open_readers, open_source, read_slide, slide_exists
from batchcls.images.sources.base import GroupResult, SourceOptions
from batchcls.images.sources.parquet_columns import has_images, image_column, name_column
from batchcls.images.sources.parquet_rows import ParquetRows
from batchcls.records import Slide
from tests.commandline import PATIENCE_S

LARGEST = 1 << 30
VALUES = st.lists(st.none() | st.binary(max_size=200) | st.sampled_from([b"a", b"bb" * 50]), min_size=1, max_size=60)
WRITING = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "snappy", "zstd", "gzip", "brotli", "lz4"]),
        "use_dictionary": st.booleans(),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "data_page_size": st.sampled_from([1, 100, 1 << 20]),
        "write_batch_size": st.sampled_from([1, 7, 1024]),
        "row_group_size": st.sampled_from([1, 5, 1000]),
        "dictionary_pagesize_limit": st.sampled_from([1, 50, 1 << 20]),
    }
)


def struct_of(values: Sequence[bytes | None], paths: Sequence[str | None]) -> pa.Array:
    """A column as Hugging Face writes it."""
    return pa.array(
        [{"bytes": value, "path": path} for value, path in zip(values, paths, strict=True)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )


def jpeg(number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20 + number, 10)).save(stream, "JPEG")
    return stream.getvalue()


def listed(path: Path) -> dict[str, Slide]:
    with closing(open_source([path])) as source:
        slides = {slide.path.removeprefix(f"{path.name}/"): slide for slide in source}
        assert source.count == len(slides)
        assert source.unlisted == []
    return slides


def read_group(slides: Sequence[Slide]) -> GroupResult:
    with closing(open_readers()) as readers, closing(readers.group_reader(10**9)) as group:
        group.start(slides, LARGEST)
        result = group.result()
        return GroupResult(
            [(slide, memoryview(bytes(data)), header) for slide, data, header in result.read],
            list(result.alone),
            list(result.again),
        )


@given(VALUES, WRITING, st.booleans(), st.booleans())
def test_each_row_has_the_bytes_that_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[bytes | None],
    writing: dict[str, Any],
    nested: bool,
    nullable: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    if not nullable:
        values = [value or b"" for value in values]
    kind = pa.field("image", pa.binary(), nullable=nullable)
    column = struct_of(values, [None] * len(values)) if nested else pa.array(values, pa.binary())
    schema = pa.schema([("image", column.type)]) if nested else pa.schema([kind])
    pq.write_table(pa.table([column], schema=schema), path, **writing)

    rows = ParquetRows(str(path))

    for order in (range(len(values)), reversed(range(len(values)))):
        assert {row: _bytes(rows, row) for row in order} == dict(enumerate(values))
    for row in (-1, len(values)):
        with pytest.raises(IndexError):
            rows.value(row)
    rows.close()


def _bytes(rows: ParquetRows, row: int) -> bytes | None:
    value = rows.value(row)
    return value if value is None else bytes(value)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8), WRITING, st.data())
def test_a_damaged_file_raises_nothing_but_our_errors(
    tmp_path_factory: pytest.TempPathFactory,
    damage: list[tuple[float, int]],
    writing: dict[str, Any],
    choices: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.parquet"
    values = [bytes([number]) * 40 for number in range(30)]
    pq.write_table(pa.table({"image": pa.array(values, pa.binary())}), path, **writing)
    data = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:  # pyarrow itself reads the footer, and crashes over some, in its own process
        end = file.metadata.row_group(0).column(0).total_compressed_size + 4
    for where, byte in damage:
        data[min(int(where * end), end - 1)] = byte
    path.write_bytes(data)

    with suppress(RefusedError):
        rows = ParquetRows(str(path))
        for row in range(30):
            with suppress(RefusedError, IndexError):
                rows.value(row)
        rows.close()


def test_hugging_face_s_struct_is_read_in_groups_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    images = [jpeg(number) for number in range(50)]
    column = struct_of([*images, None, b""], [*(f"{number}.jpg" for number in range(50)), "null.jpg", "empty.jpg"])
    pq.write_table(pa.table({"image": column, "label": list(range(52))}), path, row_group_size=20)

    slides = listed(path)

    assert list(slides) == [*(f"{number}.jpg" for number in range(50)), "null.jpg", "empty.jpg"]
    assert {slide.root for slide in slides.values()} == {str(tmp_path)}
    result = read_group(list(slides.values())[10:])
    assert [bytes(data) for _, data, _ in result.read] == images[10:]
    assert [slide.size_bytes for slide, _, _ in result.read] == list(map(len, images[10:]))
    assert {slide.modified_ns for slide, _, _ in result.read} == {path.stat().st_mtime_ns}
    assert [slide.path for slide in result.alone] == ["train.parquet/null.jpg", "train.parquet/empty.jpg"]
    for name, reason in [("null.jpg", "missing: its row of the Parquet file has no bytes"), ("empty.jpg", "empty: ")]:
        with pytest.raises(RefusedError, match=reason):
            read_slide(slides[name], LARGEST)
    with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
        with pytest.raises(RefusedError, match="missing: its row of the Parquet file has no bytes"):
            reader.open(slides["null.jpg"])
        assert reader.open(slides["7.jpg"]).read(3, 30) == images[7][3:33]


def test_rows_are_found_again_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "named.parquet"
    names = ["a.jpg", "b.jpg", "a.jpg", None, "", "row-1", "../c.jpg", "n\0ul.jpg", "l" * 5000]
    images = [jpeg(number) for number in range(len(names))]
    pq.write_table(pa.table({"jpg": pa.array(images, pa.binary()), "__key__": names, "other": images}), path)

    slides = listed(path)

    assert list(slides) == [
        *("row-00000000/a.jpg", "b.jpg", "row-00000002/a.jpg", "row-00000003", "row-00000004", "row-00000005/row-1"),
        *("../c.jpg", "nul.jpg", "row-00000008"),
    ]
    for image, slide in zip(images, slides.values(), strict=True):
        assert read_slide(slide, LARGEST) == read_slide(Slide(slide.root, slide.path), LARGEST) == image
        assert slide_exists(Slide(slide.root, slide.path))
    assert not slide_exists(Slide(str(tmp_path), "named.parquet/gone.jpg"))


def test_a_file_that_has_changed_since_it_was_listed_is_searched_for_the_name(tmp_path: Path) -> None:
    path = tmp_path / "0.parquet"
    images = [jpeg(number) for number in range(3)]
    pq.write_table(pa.table({"image": struct_of(images, ["a", "b", "c"])}), path)
    slides = listed(path)

    pq.write_table(pa.table({"image": struct_of([images[2], images[1]], ["c", "b"])}), path)

    assert read_group(list(slides.values())).alone == list(slides.values())
    assert read_slide(slides["c"], LARGEST) == images[2]
    assert not slide_exists(slides["a"])
    with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
        assert reader.open(slides["b"]).read(0, LARGEST) == images[1]
        with pytest.raises(FileNotFoundError):
            reader.open(slides["a"])


def polars_file(path: Path, images: list[bytes]) -> None:
    pl.DataFrame({"id": list(range(len(images))), "bytes": images}).write_parquet(path, row_group_size=7)


def polars_struct(path: Path, images: list[bytes]) -> None:
    rows = [{"bytes": image, "path": str(number)} for number, image in enumerate(images)]
    pl.DataFrame({"image": rows}).write_parquet(path, compression="snappy")


def duckdb_file(path: Path, images: list[bytes]) -> None:
    table = pa.table({"id": list(range(len(images))), "picture": pa.array(images, pa.binary())})
    with duckdb.connect() as connection:
        connection.register("images", table)
        connection.execute(f"COPY images TO '{path}' (FORMAT parquet)")


def large_binary(path: Path, images: list[bytes]) -> None:
    names = list(map(str, range(len(images))))
    pq.write_table(pa.table({"file_name": names, "content": pa.array(images, pa.large_binary())}), path)


@pytest.mark.parametrize("write", [polars_file, polars_struct, duckdb_file, large_binary])
def test_what_other_programs_write_is_read(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "0.parquet"
    images = [jpeg(number) for number in range(30)]
    write(path, images)

    slides = listed(path)

    assert list(slides) == list(map(str, range(30)))
    assert [bytes(data) for _, data, _ in read_group(list(slides.values())).read] == images


def test_many_rows_without_names_and_of_one_page_are_read_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "0.parquet"
    images = [jpeg(number % 100) for number in range(3000)]
    pq.write_table(pa.table({"image": pa.array(images, pa.binary())}), path)

    slides = list(listed(path).values())

    assert [slide.path for slide in slides[:2]] == ["0.parquet/row-00000000", "0.parquet/row-00000001"]
    with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
        for row in (2999, 0, 1500, 1499, 2998):
            assert reader.open(slides[row]).read(0, LARGEST) == images[row]


def test_an_encoding_that_is_not_read_is_told_in_each_row(tmp_path: Path) -> None:
    path = tmp_path / "0.parquet"
    table = pa.table({"image": pa.array([b"12", b"34"], pa.binary())})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"image": "DELTA_BYTE_ARRAY"})

    slides = list(listed(path).values())

    assert read_group(slides).alone == slides
    with pytest.raises(RefusedError, match=r"unsupported: its page is in a form that is not read .encoding 7."):
        read_slide(slides[0], LARGEST)
    with (
        closing(open_readers()) as readers,
        closing(readers.reader(PATIENCE_S)) as reader,
        pytest.raises(RefusedError, match=r"unsupported: its page is in a form that is not read .encoding 7."),
    ):
        reader.open(slides[0])


def test_a_large_image_is_read_alone_and_a_huge_page_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "0.parquet"
    large = b"\xff\xd8" + bytes(3 << 20)
    pq.write_table(pa.table({"image": pa.array([large, jpeg(1)], pa.binary())}), path, use_dictionary=False)

    slides = list(listed(path).values())

    result = read_group(slides)
    assert ([slide.path for slide, _, _ in result.read], result.alone) == (["0.parquet/row-00000001"], slides[:1])
    with closing(open_readers()) as readers, closing(readers.reader(PATIENCE_S)) as reader:
        assert reader.open(slides[0]).read(0, LARGEST) == large
    monkeypatch.setattr("batchcls.images.sources.parquet_rows.LARGEST_PAGE_BYTES", 2 << 20)
    with pytest.raises(RefusedError, match=r"too large: its page unfolds to 3,\d+,\d+ bytes"):
        read_slide(slides[0], LARGEST)


def test_the_column_of_images_is_the_likeliest(tmp_path: Path) -> None:
    text, binary = pa.string(), pa.binary()
    image = pa.struct([("path", text), ("bytes", binary)])

    assert image_column(pa.schema([("mask", binary), ("image", image)])) == "image"
    assert name_column(pa.schema([("mask", binary), ("image", image), ("id", text)])) == "image.path"
    assert image_column(pa.schema([("scan", binary), ("id", pa.int64())])) == "scan"
    assert not has_images(pa.schema([("path", text), ("label", text), ("boxes", pa.list_(binary))]))
    assert not has_images(pa.schema([("path", text), ("embedding", binary)]))
    assert has_images(pa.schema([("path", text), ("embedding", binary), ("image", binary)]))
    with pytest.raises(ValueError, match=r"several columns of bytes: 'a', 'b'; name the column of images 'image'"):
        image_column(pa.schema([("a", binary), ("b", binary)]))


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "0.parquet"
    pq.write_table(pa.table({"a": pa.array([b"1"], pa.binary()), "b": pa.array([b"1"], pa.binary())}), path)
    with pytest.raises(SlidesError, match="several columns of bytes"):
        open_source([path])
    pq.write_table(pa.table({"image": pa.array([b"1"], pa.binary())}), path)
    with pytest.raises(SlidesError, match="--keep patient"):
        open_source([path], SourceOptions(keep=("patient",)))
