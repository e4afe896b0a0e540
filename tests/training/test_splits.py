"""Images are split so that no split knows an image or a group of another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.errors import LabelsError
from batchcls.storage.natural_order import natural_key
from batchcls.training.options import SplitFractions, SplitOptions, SplitStrategy
from batchcls.training.splits import assign_splits, check_splits


@st.composite
def grouped_images(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paths, labels and groups: two to four classes of 20 groups or more, of one to four images each."""
    paths, labels, groups = [], [], []
    for label in "abcd"[: draw(st.integers(2, 4))]:
        for number in range(draw(st.integers(20, 30))):
            for image in range(draw(st.integers(1, 4))):
                paths.append(f"{label}/{number}-{image}.jpg")
                labels.append(label)
                groups.append(f"{label}{number}")
    order = draw(st.permutations(range(len(paths))))
    return tuple(np.array(values)[list(order)] for values in (paths, labels, groups))  # type: ignore[return-value]


@given(images=grouped_images(), strategy=st.sampled_from(["random", "blocks"]), seed=st.integers(0, 9))
def test_no_group_is_torn_and_every_split_has_every_class(
    images: tuple[np.ndarray, np.ndarray, np.ndarray], strategy: SplitStrategy, seed: int
) -> None:
    paths, labels, groups = images

    splits = assign_splits(paths, labels, groups, SplitOptions(strategy, SplitFractions(0.15, 0.2), seed=seed))

    for group in np.unique(groups):
        assert len(set(splits[groups == group])) == 1
    for label in np.unique(labels):
        assert set(splits[labels == label]) == {"train", "val", "test"}


@given(
    images=grouped_images(), strategy=st.sampled_from(["random", "blocks"]), fraction=st.sampled_from([0.1, 0.2, 0.4])
)
def test_splits_are_about_as_large_as_requested(
    images: tuple[np.ndarray, np.ndarray, np.ndarray], strategy: SplitStrategy, fraction: float
) -> None:
    paths, labels, groups = images

    splits = assign_splits(paths, labels, groups, SplitOptions(strategy, SplitFractions(fraction, fraction)))

    for split in ("val", "test"):
        assert abs((splits == split).mean() - fraction) <= 0.12


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.4])
def test_a_rare_class_does_not_change_how_the_others_are_split(fraction: float) -> None:
    paths = np.array([f"{number}.jpg" for number in range(1003)])
    labels = np.array(["a"] * 500 + ["b"] * 500 + ["rare"] * 3)

    splits = assign_splits(paths, labels, paths, SplitOptions("random", SplitFractions(fraction, fraction)))

    assert abs((splits == "test").mean() - fraction) < 0.02
    assert abs((splits == "val").mean() - fraction) < 0.02
    assert set(splits[labels == "rare"]) == {"train", "val", "test"}


def test_blocks_follow_the_numbers_in_the_names() -> None:
    paths = np.array([f"{label}/cell-{number}.jpg" for label in "ab" for number in range(1, 21)])
    labels = np.array([path[0] for path in paths])

    splits = assign_splits(paths, labels, paths, SplitOptions("blocks", SplitFractions(0.1, 0.2)))

    expected = ["val"] * 2 + ["train"] * 14 + ["test"] * 4
    assert splits.tolist() == expected * 2


def test_a_seed_decides_a_random_split() -> None:
    paths = np.array([f"{number}.jpg" for number in range(100)])
    labels = np.array(["a", "b"] * 50)

    first, again, other = (assign_splits(paths, labels, paths, SplitOptions(seed=seed)) for seed in (1, 1, 2))

    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize("strategy", ["random", "blocks"])
def test_a_class_of_one_image_is_refused_by_name(strategy: SplitStrategy) -> None:
    paths = np.array([f"{number}.jpg" for number in range(21)])
    labels = np.array(["common"] * 20 + ["rare"])

    with pytest.raises(LabelsError, match=r"'rare'.*leave the class out"):
        assign_splits(paths, labels, paths, SplitOptions(strategy))


def test_a_group_on_both_sides_is_refused_by_name() -> None:
    labels, groups = np.array(["a", "b"] * 3), np.array(["p1", "p2", "p1", "p2", "p1", "p3"])
    splits = np.array(["train", "train", "val", "val", "train", "val"])

    with pytest.raises(LabelsError, match=r"2 groups .*'p1', 'p2'"):
        check_splits(labels, groups, splits, ["train", "val"])


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2))
def test_natural_order_is_that_of_the_numbers(numbers: list[int]) -> None:
    names = [f"slide {number} (1).jpg" for number in numbers]

    assert sorted(names, key=natural_key) == [f"slide {number} (1).jpg" for number in sorted(numbers)]
