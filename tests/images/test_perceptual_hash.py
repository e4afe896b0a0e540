"""A perceptual hash tells copies that were recompressed, resized, turned or mirrored, and no others."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from batchcls.images.copy_links import copy_links
from batchcls.images.near_copies import ImageSets, joined_copies
from batchcls.images.perceptual_hash import (
    HASH_LENGTH,
    NEAR,
    ORIENTATIONS,
    Hashes,
    hashes,
    invariants,
    is_blank,
    nearness,
    oriented,
    oriented_pixels,
)
from batchcls.records import Pixels
from benchmarks.workload import draw_field

SIDE_PX = 64


def field(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    return draw_field(np.random.default_rng(seed), width, height)


def small(image: Image.Image) -> Pixels:
    """The image in the size of the hash."""
    return np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR))


def hash_of(*images: Image.Image) -> Hashes:
    return hashes(np.stack([small(image) for image in images]))


def recompressed(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


@given(st.integers(0, 10_000), st.integers(0, len(ORIENTATIONS) - 1))
@settings(max_examples=30)
def test_a_turned_or_mirrored_image_is_told_with_its_orientation(seed: int, orientation: int) -> None:
    image = field(seed)
    copy = Image.fromarray(oriented_pixels(np.asarray(image), orientation))

    of_image, of_copy = hash_of(image), hash_of(copy)

    near = nearness(of_image, of_copy)
    assert near.orientations.tolist() == [orientation]
    assert near.distances[0] < 0.02
    np.testing.assert_allclose(invariants(of_image), invariants(of_copy), atol=0.02)
    np.testing.assert_allclose(oriented(of_image, orientation), of_copy, atol=0.02)


@pytest.mark.parametrize(
    ("orientation", "operations"),
    [
        ("turned 90", [Image.Transpose.ROTATE_270]),  # Pillow turns counterclockwise
        ("turned 180", [Image.Transpose.ROTATE_180]),
        ("turned 270", [Image.Transpose.ROTATE_90]),
        ("mirrored", [Image.Transpose.FLIP_LEFT_RIGHT]),
        ("mirrored, turned 90", [Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_270]),
        ("mirrored, turned 180", [Image.Transpose.FLIP_TOP_BOTTOM]),
    ],
)
def test_orientations_are_clockwise(orientation: str, operations: list[Image.Transpose]) -> None:
    image = copy = field(1)
    for operation in operations:
        copy = copy.transpose(operation)

    assert np.array_equal(oriented_pixels(np.asarray(image), ORIENTATIONS.index(orientation)), np.asarray(copy))


@given(st.integers(0, 10_000), st.integers(30, 95), st.floats(0.8, 1.25))
@settings(max_examples=20)
def test_recompressed_and_resized_copies_are_near_and_other_images_are_not(
    seed: int, quality: int, scale: float
) -> None:
    image = field(seed, 224, 224)
    copy = recompressed(image.resize((round(224 * scale),) * 2, Image.Resampling.BICUBIC), quality)
    other = field(seed + 1, 224, 224)

    of_image = hash_of(image)

    assert nearness(of_image, hash_of(copy)).distances[0] <= NEAR
    assert nearness(of_image, hash_of(other)).distances[0] > 3 * NEAR


def test_the_same_place_in_another_color_is_no_copy() -> None:
    image = field(3)

    assert nearness(hash_of(image), hash_of(image.convert("L"))).distances[0] > NEAR


def test_blank_images_are_copies_of_none() -> None:
    rows, columns = np.mgrid[:120, :160]
    shaded = Image.fromarray(np.asarray(240 - (rows - 60) ** 2 / 200 - (columns - 80) ** 2 / 300, np.uint8))
    blank = hash_of(Image.new("RGB", (90, 90), "white"), shaded, recompressed(shaded.convert("RGB"), 50))

    assert is_blank(blank).all()
    assert joined_copies(ImageSets(blank)).tolist() == [0, 1, 2]


@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 20), st.booleans())
def test_the_search_finds_what_comparing_all_pairs_finds(seed: int, images: int, places: int, is_across: bool) -> None:
    rng = np.random.default_rng(seed)
    near = rng.normal(size=(places, HASH_LENGTH))[rng.integers(places, size=images)]
    rows = np.asarray(near + rng.normal(0, 0.05, near.shape) * rng.random((images, 1)), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.vstack([oriented(row[None], int(rng.integers(8))) for row in rows])
    first_set = images // 2 if is_across else None

    labels = joined_copies(ImageSets(rows, first_set=first_set), 0.5)

    expected = np.arange(images)
    for row in range(images):
        for other in range(row):
            counts = first_set is None or (other < first_set <= row)
            if counts and nearness(rows[[other]], rows[[row]]).distances[0] <= 0.5:
                ends = expected[[row, other]]
                expected[np.isin(expected, ends)] = ends.min()
    assert labels.tolist() == expected.tolist()


def test_a_copy_of_a_copy_is_linked_to_the_copy_that_it_is_near() -> None:
    first, far = hash_of(field(5)), np.zeros((1, HASH_LENGTH), np.float32)
    far[0, -1] = 1
    rows = np.vstack([first, first + 0.08 * far, first + 0.16 * far]).astype(np.float32)

    links = copy_links(ImageSets(rows), np.array([0, 1, 2]))

    assert links.copies.tolist() == [1, 2]
    assert links.images.tolist() == [0, 1]
    assert links.groups.tolist() == [1, 1]
    np.testing.assert_allclose(links.distances, 0.08, atol=1e-3)


def test_every_image_with_a_copy_in_the_other_set_has_a_link() -> None:
    one, other = hash_of(field(6)), hash_of(field(7))
    rows = np.vstack([one, one, other, one, one])  # the first three are one set

    links = copy_links(ImageSets(rows, first_set=3), np.arange(5))

    assert sorted(zip(links.images.tolist(), links.copies.tolist(), strict=True)) == [(0, 3), (0, 4), (1, 3)]
