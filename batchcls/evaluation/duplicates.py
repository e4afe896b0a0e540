"""Find images that are copies of one another, within a set or across two, and write them as a table."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from batchcls import machine
from batchcls.errors import SlidesError
from batchcls.evaluation.duplicate_table import Copy, CopyKind, check_table, write_table
from batchcls.evaluation.listed_images import ListedImages
from batchcls.images.copy_links import CopyLinks, copy_links
from batchcls.images.hashed_images import HashedImages, hash_images
from batchcls.images.image_file import read_pixels
from batchcls.images.near_copies import ImageSets, Rows
from batchcls.images.perceptual_hash import NEAR, ORIENTATIONS, is_blank, oriented_pixels
from batchcls.records import Slide
from batchcls.storage.file_names import printable

_SAME_PIXELS_NEAR = 0.01
"""Distance up to which it is looked whether all pixels are the same; resampling rounds turned images otherwise."""


@dataclass(frozen=True, slots=True)
class DuplicateOptions:
    """How copies are searched."""

    distance: float = NEAR
    """Largest distance of the hashes of an image and its copy."""
    overwrite: bool = False
    """Whether an existing table may be replaced, once the new one is whole."""
    labels: Sequence[str] = ()
    """Labels in the order of the probabilities, for predictions files that have lost their metadata."""


@dataclass(frozen=True, slots=True)
class DuplicateSummary:
    """Numbers of images of a search for copies."""

    images: int
    unreadable: int
    """Number of images that could not be read."""
    blank: int
    """Number of images that show nothing by which copies could be told, and are compared by their bytes alone."""
    groups: int
    kinds: Mapping[CopyKind, int]
    """Number of copies by kind."""
    notes: tuple[str, ...]
    """Sentences about what could not be compared."""


def find_duplicates(places: Sequence[Path], out: Path, options: DuplicateOptions, console: Console) -> DuplicateSummary:
    """Write a table of the copies in one set of images, or of those across two sets.

    Args:
        places: One place or two, see `ListedImages.read`.
        out: CSV or Parquet file to write, with a row for each copy.
        console: Console for progress, and for a line for each unreadable image.

    Raises:
        SlidesError: If there are fewer than two images, or a set has none.
        LabelsError: If a predictions file cannot be read.
        OutputError: If ``out`` may not, or cannot, be written.
    """
    check_table(out, places, overwrite=options.overwrite)
    listed = [ListedImages.read(place, options.labels) for place in places]
    _check_enough(places, listed)
    if len(listed) == 2:
        listed[1] = listed[1].without(listed[0])
        if not listed[1].slides:
            raise SlidesError(f"{str(places[1])!r} holds no image that the other set does not; name another set")
    slides = [slide for images in listed for slide in images.slides]
    hashed = hash_images(slides, console)
    for row, reason in sorted(hashed.failures.items()):
        console.print(f"unreadable: {printable(slides[row].file)}: {reason}", markup=False, highlight=False)
    first_set = len(listed[0].slides) if len(listed) == 2 else None
    is_second = np.arange(len(slides)) >= len(listed[0].slides)
    ranks = _ranks(hashed, is_second)
    embeddings, notes = _embedding_numbers(listed, hashed, ranks, is_second)
    images = ImageSets(hashed.hashes, (_digest_numbers(hashed), embeddings), first_set)
    copies = _copies(slides, hashed, copy_links(images, ranks, options.distance))
    write_table(copies, out)
    return DuplicateSummary(
        images=len(slides),
        unreadable=len(hashed.failures),
        blank=int((is_blank(hashed.hashes) & hashed.readable).sum()),
        groups=len({copy.group for copy in copies}),
        kinds=Counter(copy.kind for copy in copies),
        notes=(*_notes(listed, hashed), *notes),
    )


def _check_enough(places: Sequence[Path], listed: Sequence[ListedImages]) -> None:
    if len(listed) == 1 and len(listed[0].slides) < 2:
        count = len(listed[0].slides)
        raise SlidesError(f"{str(places[0])!r} holds {count} image{'' if count else 's'}; copies need two or more")
    for place, images in zip(places, listed, strict=True):
        if not images.slides:
            raise SlidesError(f"{str(place)!r} holds no image; name another set")


def _notes(listed: Sequence[ListedImages], hashed: HashedImages) -> Iterator[str]:
    first = 0
    for images in listed:
        yield from images.notes
        after = first + len(images.slides)
        if images.unreadable_note and any(first <= row < after for row in hashed.failures):
            yield images.unreadable_note
        first = after


def _ranks(hashed: HashedImages, is_second: npt.NDArray[np.bool_]) -> Rows:
    """(N,) order in which images are kept: those of the first set, readable ones, those of most pixels, first ones."""
    order = np.lexsort((-hashed.pixels, is_second))
    ranks = np.empty(len(order), np.intp)
    ranks[order] = np.arange(len(order))
    return ranks


def _digest_numbers(hashed: HashedImages) -> Rows:
    numbers = np.unique(hashed.digests, return_inverse=True)[1]
    return np.where(hashed.digests == np.void(bytes(hashed.digests.itemsize)), -1, numbers)


def _embedding_numbers(
    listed: Sequence[ListedImages], hashed: HashedImages, ranks: Rows, is_second: npt.NDArray[np.bool_]
) -> tuple[Rows, list[str]]:
    """(N,) numbers by which an image that cannot be read is a copy of one with the same embedding; -1: none.

    Embeddings tell no copies apart but equal ones: those of classifiers are alike for all images of a class. Of the
    readable images with one embedding only the first of each set has the number, for the hashes compare the others.
    """
    engines = {images.engine for images in listed if images.engine}
    if len(engines) > 1:
        note = "the embeddings of the two sets are of different engines, and are not compared; run both with one engine"
        if any(images.lost_its_engine for images in listed):
            note = (
                "the embeddings of the two sets are not compared: the record of one does not name its engine; another "
                "program may have written the file again; name the one that batchcls run wrote"
            )
        return np.full(len(ranks), -1), [note]
    digests = np.concatenate([images.embeddings for images in listed])
    numbers = np.unique(digests, return_inverse=True)[1].astype(np.intp)
    numbers[digests == np.void(bytes(digests.itemsize))] = -1
    readable = np.flatnonzero(hashed.readable & (numbers >= 0))
    readable = readable[np.argsort(ranks[readable])]
    first = np.unique(numbers[readable] * 2 + is_second[readable], return_index=True)[1]
    numbers[np.delete(readable, first)] = -1
    return numbers, []


def _copies(slides: Sequence[Slide], hashed: HashedImages, links: CopyLinks) -> list[Copy]:
    kinds = _kinds(slides, hashed, links)
    return [
        Copy(
            group=int(links.groups[row]),
            slide=slides[links.copies[row]],
            of=slides[links.images[row]],
            kind=kind,
            orientation=None if kind == "same embedding" else ORIENTATIONS[links.orientations[row]],
            distance=None if kind == "same embedding" else float(links.distances[row]),
        )
        for row, kind in enumerate(kinds)
    ]


def _kinds(slides: Sequence[Slide], hashed: HashedImages, links: CopyLinks) -> list[CopyKind]:
    """The kind of each link."""

    def kind(row: int) -> CopyKind:
        copy, image = links.copies[row], links.images[row]
        if not (hashed.readable[copy] and hashed.readable[image]):
            return "same embedding"
        if hashed.digests[copy] == hashed.digests[image]:
            return "same bytes"
        if links.distances[row] > _SAME_PIXELS_NEAR:
            return "near"
        return "same pixels" if _are_equal(slides[copy], slides[image], links.orientations[row]) else "near"

    with ThreadPoolExecutor(machine.cores()) as pool:
        return list(pool.map(kind, range(len(links.copies))))


def _are_equal(copy: Slide, image: Slide, orientation: int) -> bool:
    """Whether all pixels of two files are the same, once the image is in the copy's orientation."""
    try:
        pixels, others = read_pixels(copy), read_pixels(image)
    except MemoryError:  # no fault of the files
        raise
    except Exception:  # noqa: BLE001  # a file that has changed since, whatever Pillow raises
        return False
    return np.array_equal(pixels, oriented_pixels(others, orientation))
