"""Images are as novel as the share of held-back images that look less strange, or there is no number."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcls.engine.mixed_colors import two_kinds
from batchcls.engine.novelty import LARGEST_BYTES, Novelty, feature_groups, tells_novel
from batchcls.engine.novelty_fit import ReferenceImages, fit_novelty, held_back_blocks
from batchcls.errors import SlidesError
from batchcls.networks.feature_layout import FeatureLayer, FeatureLayout

LAYOUT = FeatureLayout((FeatureLayer("conv", 20), FeatureLayer("last", 12)))
GROUPS = feature_groups(LAYOUT)


def draw_features(count: int, seed: int = 0, shift: float = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(LAYOUT.width, LAYOUT.width))
    return (random.normal(size=(count, LAYOUT.width)) @ mixing + 20 + shift).astype(np.float32)


def reference(features: np.ndarray, held_back: np.ndarray | None = None) -> ReferenceImages:
    count = len(features)
    names = [f"class {row % 2}/{row}.png" for row in range(count)]
    return ReferenceImages(names, features, np.arange(count) % 3, held_back)


@pytest.fixture(scope="module")
def novelty() -> Novelty:
    fitted, notes = fit_novelty(reference(draw_features(400)), GROUPS, 3)
    assert notes == []
    return fitted


def test_others_are_novel_and_the_same_kind_is_not(novelty: Novelty) -> None:
    own, others = novelty.score(draw_features(500, 1)).novelty, novelty.score(draw_features(500, 1, shift=30)).novelty
    assert (own >= 0.99).mean() <= 0.05
    assert (others >= 0.99).all()


def test_of_200_images_enough_are_held_back_to_call_others_novel() -> None:
    for count in (200, 201, 220, 231):
        fitted, _ = fit_novelty(reference(draw_features(count)), GROUPS, 3)
        assert tells_novel(fitted.calibration_images)
        assert fitted.calibration_images + fitted.fitted_images == count


def test_the_distances_of_an_image_depend_on_no_other_of_its_batch(novelty: Novelty) -> None:
    features = draw_features(67, 3)
    expected = novelty.score(features).distances
    for size in (1, 2, 3, 5, 8, 33):
        parts = [novelty.score(features[start : start + size]).distances for start in range(0, 67, size)]
        assert np.array_equal(np.concatenate(parts), expected)
    assert novelty.score(features[:0]).distances.shape == (0, 3)


def test_novelty_is_the_share_of_held_back_images_that_are_less_strange(novelty: Novelty) -> None:
    scores = novelty.score(draw_features(200, 2, shift=1))
    sums = scores.distances.sum(axis=1)
    less = (novelty.calibration[None] < sums[:, None]).sum(axis=1)
    assert np.array_equal(scores.novelty, less / (novelty.calibration_images + 1))
    assert scores.novelty.min() >= 0
    assert scores.novelty.max() < 1
    assert (np.diff(scores.novelty[np.argsort(sums, kind="stable")]) >= 0).all()


def test_distances_are_those_of_mahalanobis() -> None:
    """With all axes and much variance, shrinkage and rounding weigh little: compare with the inverse covariance."""
    features = draw_features(4000)
    held_back = np.arange(4000) % 2 == 1
    fitted, _ = fit_novelty(reference(features, held_back), GROUPS, 3)
    for place, one in enumerate(fitted.groups):
        own = features[:, one.group.columns].astype(np.float64)
        deviations = own - own[~held_back].mean(axis=0)
        spread = own[~held_back].std(axis=0)
        shrunk = 0.95 * np.corrcoef(own[~held_back].T) + 0.05 * np.eye(own.shape[1])
        inverse = np.linalg.inv(shrunk * np.outer(spread, spread))
        squares = np.einsum("nc,cd,nd->n", deviations, inverse, deviations)
        expected = np.sqrt(squares / squares[held_back].mean())
        assert np.allclose(fitted.score(features).distances[:, place], expected, rtol=0.01)


def test_a_typical_held_back_image_is_at_distance_1(novelty: Novelty) -> None:
    distances = novelty.score(draw_features(2000, 3)).distances
    assert np.allclose(np.sqrt(np.square(distances).mean(axis=0)), 1, atol=0.1)
    assert novelty.group_names == ("color", "layer1", "layer2")


def test_features_rounded_to_bfloat16_are_as_novel(novelty: Novelty) -> None:
    features = draw_features(500, 4, shift=2)
    rounded = ((features.view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)
    assert np.allclose(novelty.score(features).novelty, novelty.score(rounded).novelty, atol=0.03)


def test_an_image_without_finite_features_gets_no_number(novelty: Novelty) -> None:
    features = draw_features(5)
    features[1, 3], features[2, -1], features[3, 30] = np.nan, np.inf, 3e38
    scores = novelty.score(features)
    assert np.isnan(scores.novelty).tolist() == [False, True, True, True, False]
    assert np.isnan(scores.distances).all(axis=1).tolist() == [False, True, True, True, False]


def test_features_of_another_engine_are_refused(novelty: Novelty) -> None:
    with pytest.raises(ValueError, match="statistics are of"):
        novelty.score(draw_features(3)[:, 1:])


def test_statistics_come_back_from_their_bytes(novelty: Novelty) -> None:
    again = Novelty.from_bytes(novelty.to_bytes(), novelty.header)
    features = draw_features(50, 5, shift=1)
    assert again.header == novelty.header
    assert np.array_equal(again.score(features).novelty, novelty.score(features).novelty)
    assert np.array_equal(again.score(features).distances, novelty.score(features).distances)


@given(place=st.integers(0, 1 << 20), bit=st.integers(0, 7), kept=st.integers(0, 1 << 20))
def test_altered_and_truncated_statistics_are_refused(novelty: Novelty, place: int, bit: int, kept: int) -> None:
    content = novelty.to_bytes()
    altered = bytearray(content)
    altered[place % len(content)] ^= 1 << bit
    for wrong in (bytes(altered), content[: kept % len(content)], content + b"\0"):
        with pytest.raises(ValueError, match=r"its SHA-256|it has"):
            Novelty.from_bytes(wrong, novelty.header)


sizes = st.one_of(st.integers(-2, 1 << 62), st.booleans(), st.floats(), st.text(max_size=3), st.none())
groups = st.lists(st.one_of(st.tuples(st.text(max_size=3), sizes, sizes, sizes), sizes), max_size=4)


@given(
    changes=st.dictionaries(
        st.sampled_from(["features", "groups", "fitted_images", "calibration_images", "sha256"]),
        st.one_of(sizes, groups),
        min_size=1,
    )
)
def test_hostile_headers_are_refused(novelty: Novelty, changes: dict[str, object]) -> None:
    header = {**novelty.header, **changes}
    try:
        again = Novelty.from_bytes(novelty.to_bytes(), header)
    except ValueError:
        return
    assert again.header == header  # a count of images that may as well be true
    assert set(changes) <= {"features", "fitted_images"} or header == novelty.header


def test_a_header_without_a_field_is_refused(novelty: Novelty) -> None:
    for key in novelty.header:
        with pytest.raises(ValueError, match=r"engine\.json"):
            Novelty.from_bytes(novelty.to_bytes(), {name: one for name, one in novelty.header.items() if name != key})


@pytest.mark.parametrize("damage", ["scale", "order", "infinity"])
def test_numbers_that_no_fit_ends_in_are_refused(novelty: Novelty, damage: str) -> None:
    first = novelty.groups[0]
    wrong = {
        "scale": replace(novelty, groups=(replace(first, scale=-1.0), *novelty.groups[1:])),
        "order": replace(novelty, calibration=novelty.calibration[::-1]),
        "infinity": replace(novelty, groups=(replace(first, mean=first.mean * np.inf), *novelty.groups[1:])),
    }[damage]
    with pytest.raises(ValueError, match=r"not finite|not positive"):
        Novelty.from_bytes(wrong.to_bytes(), wrong.header)


def test_a_layer_that_answers_the_same_to_all_is_left_out() -> None:
    features = draw_features(300)
    features[:, LAYOUT.layer_slices[0]] = 0.3
    fitted, notes = fit_novelty(reference(features), GROUPS, 3)
    assert fitted.group_names == ("color", "layer2")
    assert len(notes) == 1
    assert "layer1" in notes[0]
    assert not np.isnan(fitted.score(draw_features(20)).novelty).any()


def test_channels_that_never_vary_weigh_nothing() -> None:
    features = draw_features(300)
    features[:, 30] = 0
    fitted, _ = fit_novelty(reference(features), GROUPS, 3)
    other = features.copy()
    other[:, 30] = 1000
    assert np.array_equal(fitted.score(features).novelty, fitted.score(other).novelty)


def test_images_without_finite_features_are_left_out_and_counted() -> None:
    features = draw_features(300)
    features[10:13] = np.nan
    fitted, notes = fit_novelty(reference(features), GROUPS, 3)
    assert fitted.fitted_images + fitted.calibration_images == 297
    assert len(notes) == 1
    assert notes[0].startswith("3 images")
    assert "'class 0/10.png'" in notes[0]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (draw_features(39), "there are 39"),
        (draw_features(300) * np.nan, "there are 0, and 300 with features that are not finite"),
        (np.repeat(draw_features(1), 300, axis=0), "are the same"),
    ],
)
def test_what_tells_nothing_is_refused(features: np.ndarray, message: str) -> None:
    with pytest.raises(SlidesError, match=message):
        fit_novelty(reference(features), GROUPS, 3)


@pytest.mark.parametrize("count", [40, 44, 60])
def test_fewer_images_than_channels_tell_novelty(count: int) -> None:
    layout = FeatureLayout((FeatureLayer("wide", 300),))
    features = np.random.default_rng(count).normal(20, 1, (count + 50, layout.width)).astype(np.float32)
    fitted, _ = fit_novelty(reference(features[:count]), feature_groups(layout), 3)

    assert [one.projection.shape[1] for one in fitted.groups] == [6, fitted.fitted_images - 1]
    assert all(np.abs(one.projection).max() < 100 for one in fitted.groups), "no axis is made of rounding errors"
    assert fitted.score(features[count:] + 30).novelty.min() > fitted.score(features[count:]).novelty.mean()


def test_few_images_calibrate_nothing() -> None:
    fitted, notes = fit_novelty(reference(draw_features(40)), GROUPS, 3)
    assert not tells_novel(fitted.calibration_images)
    assert len(notes) == 1
    assert "20 held-back images" in notes[0]


def test_images_of_one_class_are_noted() -> None:
    images = replace(reference(draw_features(300)), predicted=np.zeros(300, np.intp))
    _, notes = fit_novelty(images, GROUPS, 3)
    assert len(notes) == 1
    assert "one of its 3 classes" in notes[0]
    assert fit_novelty(images, GROUPS, 1)[1] == []


def test_a_mixed_folder_is_told_by_an_image_of_each_kind() -> None:
    features = draw_features(300)
    features[::2, :6] += 200
    _, notes = fit_novelty(reference(features), GROUPS, 3)
    assert len(notes) == 1
    assert "'class 0/" in notes[0]
    assert "'class 1/" in notes[0]


def test_colors_of_one_kind_are_not_split() -> None:
    random = np.random.default_rng(0)
    for colors in (random.normal(size=(300, 6)), random.uniform(size=(300, 6)), random.exponential(size=(300, 6))):
        assert two_kinds(colors.astype(np.float32)) is None
    assert two_kinds(np.zeros((300, 6), np.float32)) is None


@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=12), seed=st.integers(0, 99))
def test_half_of_the_images_is_held_back_in_runs(counts: list[int], seed: int) -> None:
    names = [f"{folder}/{number}.png" for folder, count in enumerate(counts) for number in range(count)]
    usable = np.random.default_rng(seed).random(len(names)) < 0.9
    held_back = held_back_blocks(names, usable)
    assert not (held_back & ~usable).any()
    assert abs(2 * int(held_back.sum()) - int(usable.sum())) <= 4
    order = np.random.default_rng(seed).permutation(len(names))
    assert np.array_equal(held_back_blocks([names[row] for row in order], usable[order]), held_back[order])


def test_images_are_calibrated_on_that_the_caller_holds_back() -> None:
    held_back = np.arange(300) >= 180
    fitted, _ = fit_novelty(reference(draw_features(300), held_back), GROUPS, 3)
    assert (fitted.fitted_images, fitted.calibration_images) == (180, 120)


def test_statistics_of_a_wide_network_fit_into_the_folder() -> None:
    groups = feature_groups(FeatureLayout((FeatureLayer("wide", 40_000),)))
    random = np.random.default_rng(0)
    features = random.normal(size=(220, groups[-1].columns.stop)).astype(np.float32)
    fitted, _ = fit_novelty(reference(features), groups, 3)
    assert len(fitted.to_bytes()) <= LARGEST_BYTES
    assert (fitted.score(features[:50] + 10).novelty >= 0.99).all()
