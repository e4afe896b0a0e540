"""Images as a program gives them (paths, bytes of files, pixels), each as a slide."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from io import IOBase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from batchcls.errors import SlidesError
from batchcls.images.formats.inspection import MODES, TOO_DEEP
from batchcls.images.formats.pixels import rgb_pixels
from batchcls.images.sources.memory import MemorySlide
from batchcls.records import Failure, Pixels, Slide
from batchcls.storage.urls import bucket_and_key, is_url

_KINDS = "paths, bytes of image files, PIL images, or (H, W, 3) uint8 arrays in RGB"


@dataclass(frozen=True, slots=True)
class PixelsSlide(Slide):
    """A decoded image in memory; its path is a number that no other slide of one call has, its root is empty."""

    pixels: Pixels = field(default_factory=lambda: np.empty((0, 0, 3), np.uint8), compare=False, repr=False)
    """(H, W, 3) uint8 RGB."""


def is_in_memory(slide: Slide) -> bool:
    """Whether a slide is no file, so that its row has no root and no path."""
    return not slide.root


def memory_bytes(slide: Slide | Failure) -> int:
    """Memory that an image takes before it is decoded, or as pixels; 0 for a file."""
    if isinstance(slide, MemorySlide):
        return len(slide.data)
    return slide.pixels.nbytes if isinstance(slide, PixelsSlide) else 0


def single_path(images: Any) -> Path | None:
    """The path, if ``images`` is one path, and no URL; else None."""
    is_path = isinstance(images, os.PathLike) or (isinstance(images, str) and not is_url(images))
    return Path(images) if is_path else None


def slides_of(images: Any, max_pixels: int) -> Iterator[Slide | Failure]:
    """The slide of each image, in order, computed when it is asked for; a failure for an image that cannot be one.

    Args:
        images: One image, or an iterable of them, such as a list, a generator, a column of pandas, Polars or Arrow, or
            an (N, H, W, 3) array.
        max_pixels: Pixels of the largest decoded image; larger ones are failures, as those of files are.

    Raises:
        SlidesError: If ``images``, or one of them, is of no kind that can be classified.
    """
    for position, image in enumerate(_each(images)):
        yield _slide(image, position, max_pixels)


def count_of(images: Any) -> int | None:
    """The number of images; None if it is not known before the last one."""
    if is_one(images):
        return 1
    return len(images) if hasattr(images, "__len__") else None


def is_one(images: Any) -> bool:
    """Whether ``images`` is one image, and no iterable of images."""
    kinds = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)
    return isinstance(images, kinds) or (isinstance(images, np.ndarray) and images.ndim in (0, 2, 3))


def _each(images: Any) -> Iterable[Any]:
    if is_one(images):
        return (images,)
    if isinstance(images, Mapping) or hasattr(type(images), "columns"):
        raise SlidesError(f"a {type(images).__name__} was given, which holds columns; give one of them: {_KINDS}")
    if isinstance(images, IOBase):  # iteration would give its lines
        raise SlidesError(f"an open file ({type(images).__name__}) was given; give its path, or its bytes: .read()")
    if not isinstance(images, Iterable):
        raise SlidesError(f"a {type(images).__name__} was given; give {_KINDS}, or several of one of these")
    return images


def _slide(image: Any, position: int, max_pixels: int) -> Slide | Failure:
    value = image.as_py() if isinstance(image, pa.Scalar) else image
    name = str(position)
    if isinstance(value, str | os.PathLike):
        return _file(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return MemorySlide("", name, data=bytes(value))
    if isinstance(value, Image.Image):
        return _decoded(value, name, max_pixels)
    if isinstance(value, np.ndarray) and value.ndim == 3 and value.shape[2] == 3 and value.dtype == np.uint8:
        return _with_pixels(value, name, max_pixels)
    if _is_null(value):
        return Failure(Slide("", name), "missing", "no image was given")
    described = f"{value.shape} {value.dtype}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
    raise SlidesError(
        f"image {position} is {described}; give {_KINDS} (PIL.Image.fromarray takes arrays of other shapes)"
    )


def _file(path: str | os.PathLike[str]) -> Slide | Failure:
    """The slide of a file or of a URL, with the root and the path that `batchcls run` gives what it is named."""
    if isinstance(path, str) and is_url(path):
        bucket_and_key(path)  # refuses credentials
        root, _, name = path.rpartition("/")
        return Slide(root, name)
    file = Path(path)
    slide = Slide(str(file.parent), file.name)
    try:
        if b"\0" in os.fsencode(slide.file):
            return Failure(Slide(slide.root.replace("\0", ""), slide.path), "missing", "its name holds a zero byte")
    except UnicodeEncodeError:
        readable = str(file).encode(errors="backslashreplace").decode()
        return Failure(_file_named(readable), "missing", "its name holds halves of characters, which no file can")
    return slide


def _file_named(path: str) -> Slide:
    file = Path(path)
    return Slide(str(file.parent), file.name)


def _with_pixels(pixels: Pixels, name: str, max_pixels: int) -> Slide | Failure:
    height, width = pixels.shape[:2]
    if not pixels.size:
        return Failure(Slide("", name), "empty", "it has no pixels", width, height)
    if width * height > max_pixels:
        reason = f"{width}x{height} is {width * height:,} pixels; the limit is {max_pixels:,} (max_pixels)"
        return Failure(Slide("", name), "too large", reason, width, height)
    return PixelsSlide("", name, pixels=pixels)


def _decoded(image: Image.Image, name: str, max_pixels: int) -> Slide | Failure:
    """The slide of a PIL image, whose pixels may still be in a file, under the rules for the modes of files."""
    slide = Slide("", name)
    if image.width * image.height > max_pixels:
        return _with_pixels(np.broadcast_to(np.uint8(0), (image.height, image.width, 3)), name, max_pixels)
    if image.mode not in MODES:
        reason = TOO_DEEP if image.mode[0] in "IF" else f"mode {image.mode} is not converted; convert it to 8-bit RGB"
        return Failure(slide, "unsupported", reason, *image.size)
    try:
        image.load()
        return _with_pixels(rgb_pixels(image), name, max_pixels)
    except MemoryError:  # no fault of the image
        raise
    except Exception:  # noqa: BLE001  # any error of a Pillow plugin concerns this one image
        return Failure(slide, "corrupt", "its image data cannot be decoded", *image.size)


def _is_null(value: Any) -> bool:
    """Whether a value of a column stands for none: None, NaN, or pandas' NA."""
    return (
        value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, float) and value != value)
    )
