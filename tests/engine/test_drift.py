"""The drift of a run: which change of the images it names, and when it stays silent."""

import json
from collections.abc import Callable
from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFilter

from batchcls.engine.drift import Drift, measure_drift
from batchcls.engine.drift_reference import DriftReference
from batchcls.engine.measure_sums import MeasureSums, ReferenceSums
from batchcls.engine.measures import APPEARANCE_MEASURES, image_measures, measure_names
from batchcls.networks.appearance import APPEARANCE_NAMES, appearance
from batchcls.records import Pixels

Measures = npt.NDArray[np.float32]
LABELS = ("even", "odd")
BLOCKS = 10


@cache
def slides(seed: int, blocks: int = BLOCKS) -> tuple[Pixels, npt.NDArray[np.int64]]:
    """Images of 48x56 in blocks of 64, the first half of label 0; each block is stained a little differently."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:48, :56]
    images = []
    for number in range(64 * blocks):
        if number % 64 == 0:
            stain = np.array([0.5, 0.8, 0.3]) * generator.normal(1, 0.05, 3)
            light = generator.normal(0.15, 0.01)
        cells = np.zeros((48, 56))
        for _ in range(3 + 2 * (number >= 32 * blocks)):
            row, column, size = generator.uniform(0, 48), generator.uniform(0, 56), generator.uniform(4, 8)
            cells += 1 / (1 + np.exp(np.hypot(rows - row, columns - column) - size))
        texture = 1 + 0.3 * generator.normal(size=(48, 56))
        density = light + (cells * texture)[..., None] * stain
        images.append(np.clip(255 * np.exp(-density), 0, 255).astype(np.uint8))
    return np.stack(images), (np.arange(64 * blocks) >= 32 * blocks).astype(np.int64)


def measured(pixels: Pixels) -> Measures:
    return image_measures(appearance(pixels))


@cache
def reference() -> DriftReference:
    pixels, codes = slides(0)
    return of_blocks(measured(pixels), codes)


def of_blocks(measures: Measures, codes: npt.NDArray[np.int64], step: int = 100) -> DriftReference:
    sums = ReferenceSums(APPEARANCE_MEASURES, len(LABELS))
    for start in range(0, len(codes), step):
        sums.add(measures[start : start + step], codes[start : start + step])
    made = sums.reference()
    assert made
    return made


def drift(measures: Measures, codes: npt.NDArray[np.int64], against: DriftReference | None = None) -> Drift:
    sums = MeasureSums(APPEARANCE_MEASURES, len(LABELS))
    sums.add(measures, codes)
    return measure_drift(sums, against or reference(), LABELS)


def altered(pixels: Pixels, alter: Callable[[Image.Image], Image.Image]) -> Pixels:
    return np.stack([np.asarray(alter(Image.fromarray(image))) for image in pixels])


def recompressed(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=20)
    return Image.open(stream).convert("RGB")


def turned_hue(image: Image.Image) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda step: (step + 14) % 256), saturation, value)).convert("RGB")


def every(number: int) -> slice:
    return slice(None, None, 64 * BLOCKS // number)


@pytest.mark.parametrize(
    ("kind", "word", "alter"),
    [
        ("brightness", "brighter", lambda image: image.point(lambda value: min(255, round(1.12 * value)))),
        ("brightness", "darker", lambda image: image.point(lambda value: round(0.88 * value))),
        ("color", "of another color", turned_hue),
        ("sharpness", "more blurred", lambda image: image.filter(ImageFilter.GaussianBlur(1.5))),
        ("compression", "compressed harder", recompressed),
    ],
)
def test_the_change_of_sixty_four_images_is_named(
    kind: str, word: str, alter: Callable[[Image.Image], Image.Image]
) -> None:
    pixels, codes = slides(1)
    found = drift(measured(altered(pixels[every(64)], alter)), codes[every(64)])
    assert found.effects[0].kind == kind
    assert found.effects[0].is_drift
    assert f"The images are {word} than the reference's" in found.effects[0].sentence


def test_other_images_of_the_kind_do_not_drift() -> None:
    pixels, codes = slides(1)
    found = drift(measured(pixels[every(64)]), codes[every(64)])
    assert found.kinds == ()
    assert len(found.effects) == 6


def test_a_run_of_one_label_has_other_labels_and_no_other_color() -> None:
    pixels, codes = slides(1)
    found = drift(measured(pixels[codes == 1]), codes[codes == 1])
    assert found.kinds == ("labels",)
    assert "'even' has 0 % of the images, there 50 %" in found.effects[0].sentence


def test_the_batches_of_a_run_make_no_difference() -> None:
    pixels, codes = slides(1)
    measures, sums = measured(pixels), MeasureSums(APPEARANCE_MEASURES, 2)
    for start in range(0, len(codes), 7):
        sums.add(measures[start : start + 7], codes[start : start + 7])
    effects = {effect.kind: effect.effect for effect in measure_drift(sums, reference(), LABELS).effects}
    assert effects == pytest.approx({effect.kind: effect.effect for effect in drift(measures, codes).effects})


def test_the_batches_of_a_reference_make_no_difference() -> None:
    pixels, codes = slides(0)
    by_seven, whole = (of_blocks(measured(pixels), codes, step) for step in (7, 10_000))
    np.testing.assert_allclose(by_seven.between, whole.between, rtol=1e-6, atol=1e-12)
    assert by_seven.thresholds == pytest.approx(dict(whole.thresholds))


def test_a_reference_is_the_same_from_json() -> None:
    text = json.dumps(reference().values())
    pixels, codes = slides(1)
    measures = measured(altered(pixels[every(64)], turned_hue))
    again = drift(measures, codes[every(64)], DriftReference.of_values(json.loads(text)))
    expected = drift(measures, codes[every(64)])
    assert [effect.effect for effect in again.effects] == pytest.approx([e.effect for e in expected.effects], rel=1e-3)
    assert again.values()["kinds"] == ["color"]
    json.dumps(again.values(), allow_nan=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("measures", ["brightness"]),
        ("measures", []),
        ("means", [[0.0]]),
        ("within", [[float("nan")] * 9] * 9),
        ("within", [[0.0] * 9] * 9),
        ("thresholds", {}),
        ("images", "many"),
        ("measured", [-1, 2]),
        ("images", [-1, 2]),
        ("means", [[1e4] * 9] * 2),
        ("within", [[1.0] * 9] * 9),
        ("between", (-np.eye(9)).tolist()),
        ("between", [[1e308] * 9] * 9),
        ("thresholds", dict.fromkeys(reference().thresholds, 0.0)),
        ("thresholds", dict.fromkeys(reference().thresholds, -1.0)),
    ],
)
def test_a_damaged_reference_is_refused(key: str, value: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        DriftReference.of_values({**reference().values(), key: value})


def test_too_few_images_are_said_to_be_too_few() -> None:
    pixels, codes = slides(1)
    found = drift(measured(pixels[:63]), codes[:63])
    assert found.effects == ()
    assert found.note == "drift is unknown: 64 images are the fewest, and 63 have measures"


def test_images_without_a_label_or_with_measures_that_are_no_numbers_do_not_count() -> None:
    pixels, codes = slides(1)
    measures = measured(pixels[every(128)])
    measures[:64, 3] = np.nan
    kept = codes[every(128)].copy()
    kept[-5:] = -1
    assert drift(measures, kept).images == 59


def test_a_reference_of_few_blocks_is_none() -> None:
    pixels, codes = slides(0)
    sums = ReferenceSums(APPEARANCE_MEASURES, 2)
    sums.add(measured(pixels[:383]), codes[:383])
    assert sums.reference() is None
    nothing = measure_drift(MeasureSums(APPEARANCE_MEASURES, 2), None, LABELS)
    assert nothing.note == "drift is unknown: the engine has learned from too few images to tell it; 384 are enough"


def test_a_constant_reference_does_not_make_every_rounding_a_drift() -> None:
    constant = of_blocks(np.ones((640, 9), np.float32), np.zeros(640, np.int64))
    assert drift(np.full((64, 9), 1.0004, np.float32), np.zeros(64, np.int64), constant).kinds == ()
    assert "brightness" in drift(np.full((64, 9), 1.1, np.float32), np.zeros(64, np.int64), constant).kinds


def test_labels_that_no_reference_image_had_are_left_out() -> None:
    measures = np.random.default_rng(0).normal(size=(640, 9)).astype(np.float32)
    only_even = of_blocks(measures, np.zeros(640, np.int64))
    found = drift(measures[:64], np.ones(64, np.int64), only_even)
    assert found.note == "drift is unknown: 64 images are the fewest, and 0 have measures"


def test_growing_distances_are_a_drift_behind_what_is_seen_in_the_images() -> None:
    generator, names = np.random.default_rng(0), measure_names(["color", "stem"])
    measures = np.concatenate([generator.normal(size=(640, 9)), generator.lognormal(0, 0.2, (640, 2))], axis=1)
    sums, run = ReferenceSums(names, 1), MeasureSums(names, 1)
    sums.add(measures, np.zeros(640, np.int64))
    measures[:, 0] -= 3
    measures[:, 10] *= 50
    run.add(measures, np.zeros(640, np.int64))
    found = measure_drift(run, sums.reference(), ["only"])
    assert found.kinds == ("brightness", "distance_stem")
    assert "stranger by stem than the reference's: distance times 50." in found.effects[1].sentence


def test_even_images_have_measures() -> None:
    assert np.isfinite(image_measures(appearance(np.full((1, 32, 32, 3), 255, np.uint8)))).all()
    assert np.isnan(image_measures(np.full((1, len(APPEARANCE_NAMES)), np.nan, np.float32))).all()
