"""Every slide is in exactly one shard, wherever and in whatever order slides are listed."""

import subprocess
import sys
from collections import Counter
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.errors import OutputError, SlidesError
from batchcls.images.sources import open_source
from batchcls.images.sources.base import SourceOptions
from batchcls.images.sources.shard import slide_hash
from batchcls.records import Slide
from batchcls.storage.shards import MOST_SHARDS, Shard, index_ranges, shard_file, shard_of_file
from tests.commandline import PATIENCE_S

NAMES = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=("Cs",)), min_size=1, max_size=12)
SLIDES = st.lists(st.builds(Slide, st.sampled_from(["a", "b", "s3://bucket"]), NAMES), unique=True, max_size=40)
SHARDS = st.integers(1, MOST_SHARDS).flatmap(lambda count: st.builds(Shard, st.integers(0, count - 1), st.just(count)))


def listed(places: list[Path], shard: Shard | None = None) -> list[Slide]:
    with closing(open_source(places, SourceOptions(shard=shard))) as source:
        slides = list(source)
        assert (source.count, source.complete) == (len(slides), True)
        return slides


@given(SLIDES, st.integers(1, 50), st.randoms(use_true_random=False))
def test_the_shard_of_a_slide_depends_on_nothing_but_its_name(slides: list[Slide], count: int, order: object) -> None:
    before = {slide: slide_hash(slide) % count for slide in slides}
    order.shuffle(slides)  # type: ignore[attr-defined]
    assert {Slide(slide.root, slide.path, 3, 4): slide_hash(slide) % count for slide in slides} == before


def test_the_hash_is_the_same_on_every_machine() -> None:
    slides = [Slide("slides", "a/1.jpg"), Slide("s3://bucket", "µ.tif"), Slide("", "\udcff.jpg")]
    assert [slide_hash(slide) for slide in slides] == [
        16319505791983743778,
        9569727561483370306,
        17811418670834244852,
    ]
    program = "from batchcls.images.sources.shard import *; print(slide_hash(Slide('slides', 'a/1.jpg')))"
    other = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert int(other.stdout) == slide_hash(slides[0])


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_every_slide_of_a_source_is_in_exactly_one_shard(tmp_path: Path, count: int) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    for number in range(120):
        file = places[number % 2] / f"{number % 5}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (places[0] / "\udcff.jpg").touch()

    shards = [listed(places, Shard(index, count)) for index in range(count)]

    assert Counter(slide for shard in shards for slide in shard) == Counter(listed(places))
    assert [listed(places[::-1], Shard(index, count)) for index in range(count)] != shards or count > 100
    assert [set(listed(places[::-1], Shard(index, count))) for index in range(count)] == list(map(set, shards))


@given(SHARDS)
def test_a_shard_is_read_from_the_name_of_its_file(shard: Shard) -> None:
    assert shard_of_file(shard.file_name) == shard
    assert shard_of_file(shard.file_name + ".partial") is None


@pytest.mark.parametrize("count", [1, 9, 1000, 99_999, 100_000])
def test_files_sort_as_their_shards_do(count: int) -> None:
    names = [Shard(index, count).file_name for index in {0, count // 3, count // 2, count - 1}]
    indexes = {name: shard.index for name in names if (shard := shard_of_file(name))}
    assert all(indexes[before] < indexes[after] for before, after in pairwise(sorted(names)))
    assert Shard(17, 1000).file_name == "shard-00017-of-01000.parquet"


@pytest.mark.parametrize(
    "name",
    ["shard-00001-of-00001.parquet", "shard-0001-of-0003.parquet", "shard-000001-of-000003.parquet", "shard-1.parquet"],
)
def test_other_names_are_none_of_a_shard(name: str) -> None:
    assert shard_of_file(name) is None


@pytest.mark.parametrize(("index", "count"), [(0, 0), (5, 5), (-1, 3), (0, -1), (0, MOST_SHARDS + 1)])
def test_a_shard_that_there_cannot_be_is_refused(index: int, count: int) -> None:
    with pytest.raises(SlidesError, match=f"shard {index}/{count} was asked for"):
        Shard(index, count)


@given(st.sets(st.integers(0, 60)))
def test_ranges_name_the_same_numbers(indexes: set[int]) -> None:
    named: set[int] = set()
    for part in index_ranges(indexes).split(",") if indexes else []:
        first, _, last = part.partition("-")
        named |= set(range(int(first), int(last or first) + 1))
    assert named == indexes
    assert index_ranges([9, 3, 7, 8, 8]) == "3,7-9"


def test_shards_of_two_numbers_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "preds"
    assert shard_file(folder, Shard(1, 3)) == folder / "shard-00001-of-00003.parquet"
    (folder / "shard-00001-of-00003.parquet.partial").mkdir()

    assert shard_file(folder, Shard(2, 3)) == folder / "shard-00002-of-00003.parquet"
    with pytest.raises(OutputError, match=r"holds 'shard-00001-of-00003.parquet.partial', one of 3: .*--shard auto/3"):
        shard_file(folder, Shard(1, 4))
    with pytest.raises(OutputError, match="has the ending of a file"):
        shard_file(tmp_path / "preds.parquet", Shard(1, 4))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be used as a folder: File exists"):
        shard_file(tmp_path / "file", Shard(1, 4))
