"""Rows sorted in little memory: equal to all rows sorted at once, however they come."""

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchcls.predictions.external_sort import sorted_tables
from batchcls.predictions.schema import part_schema

SCHEMA = part_schema(3)
Scratch = Callable[[], BinaryIO]


def rows(keys: list[tuple[int, str]], first: int = 0) -> list[dict[str, Any]]:
    """A row for each root and path; its width tells the place at which it was given."""
    return [
        {
            **dict.fromkeys(SCHEMA.names),
            "root": root,
            "path": path,
            "probabilities": [0.5, 0.25, 0.25] if place % 3 else None,
            "width": place,
        }
        for place, (root, path) in enumerate(keys, first)
    ]


def batches(*parts: list[tuple[int, str]]) -> Iterator[pa.RecordBatch]:
    first = 0
    for keys in parts:
        yield pa.RecordBatch.from_pylist(rows(keys, first), SCHEMA)
        first += len(keys)


def in_order(*parts: list[tuple[int, str]]) -> list[dict[str, Any]]:
    everything = rows([key for keys in parts for key in keys])
    return sorted(everything, key=lambda row: (row["root"], row["path"].encode()))


def on_disk() -> BinaryIO:
    return TemporaryFile()  # the sort closes it


def none() -> BinaryIO:
    raise AssertionError("so few rows need no disk")


keys = st.tuples(st.integers(0, 3), st.text("ab/é\U0001f600\ue000", max_size=4))


@settings(max_examples=150)
@given(parts=st.lists(st.lists(keys, max_size=30), max_size=8), memory=st.integers(1, 4000), length=st.integers(1, 20))
def test_the_rows_are_those_of_all_parts_sorted_at_once(
    parts: list[list[tuple[int, str]]], memory: int, length: int
) -> None:
    tables = list(sorted_tables(batches(*parts), SCHEMA, on_disk, length, memory))

    assert [row for table in tables for row in table.to_pylist()] == in_order(*parts)
    assert all(len(table) == length for table in tables[:-1])
    assert all(column.num_chunks == 1 for table in tables for column in table.columns)


@pytest.mark.parametrize("shuffled", [False, True])
def test_many_rows_in_little_memory_stay_complete(shuffled: bool) -> None:
    chosen = [(number % 2, f"{number // 7}/{number:05d}.jpg") for number in range(20_000)]
    (random.Random(5).shuffle if shuffled else list.sort)(chosen)
    parts = [chosen[start : start + 900] for start in range(0, len(chosen), 900)]

    tables = list(sorted_tables(batches(*parts), SCHEMA, on_disk, 4096, 64 << 10))

    assert pa.concat_tables(tables).to_pylist() == in_order(*parts)
    assert [len(table) for table in tables] == [4096] * 4 + [20_000 - 4 * 4096]


def test_few_rows_never_touch_the_disk() -> None:
    tables = list(sorted_tables(batches([(0, "b")], [], [(0, "a")]), SCHEMA, none, 100))

    assert [table["path"].to_pylist() for table in tables] == [["a", "b"]]


def test_no_rows_are_no_tables() -> None:
    assert list(sorted_tables(iter(()), SCHEMA, none, 100)) == []


def test_the_scratch_file_is_closed_when_nobody_wants_the_rest(tmp_path: Path) -> None:
    opened: list[BinaryIO] = []

    def scratch() -> BinaryIO:
        opened.append((tmp_path / "scratch").open("w+b"))
        return opened[0]

    tables = sorted_tables(batches(*[[(0, str(number))] for number in range(50)]), SCHEMA, scratch, 1, 1)
    next(iter(tables))
    assert os.path.getsize(tmp_path / "scratch") > 1000
    tables.close()  # type: ignore[attr-defined]

    assert opened[0].closed


def test_memory_does_not_grow_with_the_rows() -> None:
    schema = pa.schema([("root", pa.int32()), ("path", pa.string())])
    before, most = pa.total_allocated_bytes(), 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal most
        for start in range(0, 200_000, 1000):
            paths = [f"{number * 7919 % 200_000:012d}.jpg" for number in range(start, start + 1000)]
            yield pa.RecordBatch.from_arrays([pa.array([0] * 1000, pa.int32()), pa.array(paths)], schema=schema)
            most = max(most, pa.total_allocated_bytes() - before)

    found = 0
    for table in sorted_tables(counted(), schema, on_disk, 4096, 256 << 10):
        found += len(table)
        most = max(most, pa.total_allocated_bytes() - before)

    assert found == 200_000
    assert most < 2 << 20  # of 5 MB
