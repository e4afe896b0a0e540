"""Parts that have not seen each other's images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.errors import LabelsError
from batchcls.training.splits import SplitFractions, SplitStrategy, assign_splits, check_parts, duplicates, natural


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


@given(images=grouped_images(), way=st.sampled_from(["random", "blocks"]), seed=st.integers(0, 9))
def test_no_group_is_torn_and_every_part_has_every_class(
    images: tuple[np.ndarray, np.ndarray, np.ndarray], way: SplitStrategy, seed: int
) -> None:
    paths, labels, groups = images

    parts = assign_splits(paths, labels, groups, way, SplitFractions(0.15, 0.2), seed)

    for group in np.unique(groups):
        assert len(set(parts[groups == group])) == 1
    for label in np.unique(labels):
        assert set(parts[labels == label]) == {"train", "val", "test"}


@given(images=grouped_images(), way=st.sampled_from(["random", "blocks"]), share=st.sampled_from([0.1, 0.2, 0.4]))
def test_parts_are_about_as_large_as_asked(
    images: tuple[np.ndarray, np.ndarray, np.ndarray], way: SplitStrategy, share: float
) -> None:
    paths, labels, groups = images

    parts = assign_splits(paths, labels, groups, way, SplitFractions(share, share), 0)

    for part in ("val", "test"):
        assert abs((parts == part).mean() - share) <= 0.12


@pytest.mark.parametrize("share", [0.1, 0.2, 0.4])
def test_a_rare_class_does_not_change_how_the_others_are_parted(share: float) -> None:
    paths = np.array([f"{number}.jpg" for number in range(1003)])
    labels = np.array(["a"] * 500 + ["b"] * 500 + ["rare"] * 3)

    parts = assign_splits(paths, labels, paths, "random", SplitFractions(share, share), 0)

    assert abs((parts == "test").mean() - share) < 0.02
    assert abs((parts == "val").mean() - share) < 0.02
    assert set(parts[labels == "rare"]) == {"train", "val", "test"}


def test_blocks_follow_the_numbers_in_the_names() -> None:
    paths = np.array([f"{label}/cell-{number}.jpg" for label in "ab" for number in range(1, 21)])
    labels = np.array([path[0] for path in paths])

    parts = assign_splits(paths, labels, paths, "blocks", SplitFractions(0.1, 0.2), 0)

    wanted = ["val"] * 2 + ["train"] * 14 + ["test"] * 4
    assert parts.tolist() == wanted * 2


def test_a_seed_decides_a_random_split() -> None:
    paths = np.array([f"{number}.jpg" for number in range(100)])
    labels = np.array(["a", "b"] * 50)

    first, again, other = (assign_splits(paths, labels, paths, "random", SplitFractions(), seed) for seed in (1, 1, 2))

    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


@pytest.mark.parametrize("way", ["random", "blocks"])
def test_a_class_of_one_image_is_refused_by_name(way: SplitStrategy) -> None:
    paths = np.array([f"{number}.jpg" for number in range(21)])
    labels = np.array(["common"] * 20 + ["rare"])

    with pytest.raises(LabelsError, match=r"'rare'.*leave the class out"):
        assign_splits(paths, labels, paths, way, SplitFractions(), 0)


def test_a_group_on_both_sides_is_refused_by_name() -> None:
    labels, groups = np.array(["a", "b"] * 3), np.array(["p1", "p2", "p1", "p2", "p1", "p3"])
    parts = np.array(["train", "train", "val", "val", "train", "val"])

    with pytest.raises(LabelsError, match=r"2 groups .*'p1', 'p2'"):
        check_parts(labels, groups, parts, ["train", "val"])


@given(st.lists(st.integers(0, 10**6), unique=True, min_size=2))
def test_natural_order_is_that_of_the_numbers(numbers: list[int]) -> None:
    names = [f"slide {number} (1).jpg" for number in numbers]

    assert sorted(names, key=natural) == [f"slide {number} (1).jpg" for number in sorted(numbers)]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.binary(max_size=1)), max_size=30))
def test_of_images_alike_one_stays_unless_they_are_called_differently(images: list[tuple[str, bytes]]) -> None:
    labels = {str(row): label for row, (label, _) in enumerate(images)}
    prints = {str(row): shown for row, (_, shown) in enumerate(images)}

    left_out = duplicates(labels, prints)

    stay = [path for path in labels if path not in left_out]
    assert len({prints[path] for path in stay}) == len(stay)
    called = {shown: {label for label, other in images if other == shown} for _, shown in images}
    assert {prints[path] for path in stay} == {shown for shown, names in called.items() if len(names) == 1}
