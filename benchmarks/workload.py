"""Workloads: folders of synthetic blood smear images, drawn from a seed; no image shows a patient."""

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Canvas = npt.NDArray[np.float32]

PAPER = (232.0, 222.0, 226.0)
RED_CELL = (214.0, 150.0, 158.0)
CYTOPLASM = (178.0, 160.0, 205.0)
NUCLEUS = (92.0, 52.0, 132.0)
PLATELET = (150.0, 104.0, 168.0)


@dataclass(frozen=True, slots=True)
class Workload:
    """A folder of synthetic images; the same seed gives the same bytes with the same version of Pillow."""

    name: str
    """Name in records and on the command line."""
    width_px: int
    height_px: int
    images: int
    """Number of files."""
    format: str = "JPEG"
    """Pillow's name of the file format; JPEGs vary in quality and in chroma subsampling (4:2:0 and 4:4:4)."""
    files_per_folder: int = 0
    """Number of files in each subfolder; 0 for no subfolders."""
    corrupt_fraction: float = 0.0
    """Fraction of the files that are truncated to half their size."""
    seed: int = 0
    """Seed of the images, together with each one's number."""
    quality: tuple[int, int] = (75, 95)
    """Lowest and highest quality of JPEGs."""
    links: int = 0
    """Number of files that are hard links to the images, which are linked in turn; 0 for the images themselves."""

    def draw(self, parent: Path) -> Path:
        """Draw the images that are missing below ``parent``, and return the folder of the workload's files."""
        target = parent / f"{self.name}-{self.images}"
        target.mkdir(parents=True, exist_ok=True)
        missing = [number for number in range(self.images) if not (target / self._file_name(number)).exists()]
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(partial(self._draw_one, target), missing, chunksize=8))
        return link_images(target, self.links) if self.links else target

    def _file_name(self, number: int) -> str:
        name = f"field_{number:06d}{_ENDINGS[self.format]}"
        return f"folder_{number // self.files_per_folder:06d}/{name}" if self.files_per_folder else name

    def _draw_one(self, target: Path, number: int) -> None:
        rng = np.random.default_rng((self.seed, number))
        image = draw_field(rng, self.width_px, self.height_px)
        path = target / self._file_name(number)
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        options = {
            "quality": int(rng.integers(self.quality[0], self.quality[1] + 1)),
            "subsampling": ("4:2:0", "4:4:4")[number % 2],
        }
        image.save(unfinished, self.format, **options if self.format == "JPEG" else {})
        if self.corrupt_fraction and number % round(1 / self.corrupt_fraction) == 0:
            os.truncate(unfinished, unfinished.stat().st_size // 2)
        unfinished.replace(path)


_ENDINGS = {"JPEG": ".jpg", "BMP": ".bmp", "PNG": ".png", "TIFF": ".tif"}

FIELDS = Workload("fields-1024x768", 1024, 768, images=512)
CROPS = Workload("crops-224x224", 224, 224, images=2048)
LARGER_CROPS = replace(CROPS, name="crops-224x224-22-kb", quality=(90, 98), links=100_000)
"""Files of 22 KB on average, for the cost of a file besides its network: so many that starting is no part of it."""
WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        FIELDS,
        CROPS,
        Workload("crops-450x450-bmp", 450, 450, images=512, format="BMP"),
        Workload("fields-640x480", 640, 480, images=512),
        Workload("fields-640x480-png", 640, 480, images=256, format="PNG"),
        Workload("fields-640x480-tiff", 640, 480, images=256, format="TIFF"),
        Workload("fields-2592x1944", 2592, 1944, images=128),
        replace(CROPS, name="crops-224x224-small-folders", files_per_folder=4),
        replace(CROPS, name="crops-224x224-1%-corrupt", corrupt_fraction=0.01),
        LARGER_CROPS,
    )
}


def link_images(folder: Path, images: int) -> Path:
    """A folder with ``images`` hard links to the images of ``folder``, which are linked in turn.

    Args:
        folder: Folder of images, beside which the new folder is created.
        images: Number of links.
    """
    target = folder.with_name(f"{folder.name}-as-{images}")
    target.mkdir(exist_ok=True)
    sources = sorted(path for path in folder.rglob("*") if path.is_file())
    existing = set(os.listdir(target))
    for number in range(images):
        source = sources[number % len(sources)]
        if (name := f"{number:07d}{source.suffix}") not in existing:
            os.link(source, target / name)
    return target


def draw_field(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """One microscope field: red cells with central pallor, white cells with lobed nuclei, platelets, and noise.

    Args:
        rng: Source of all randomness.
        width: Width in pixels.
        height: Height in pixels.
    """
    scale = height / 768
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = PAPER
    area = width * height / (1024 * 768) / scale**2
    for _ in range(rng.poisson(70 * area)):
        _paint_red_cell(canvas, rng, rng.uniform(26, 34) * scale)
    for _ in range(rng.poisson(14 * area)):
        _paint_disc(canvas, rng, _random_position(canvas, rng), rng.uniform(5, 8) * scale, _Paint(PLATELET, 0.8))
    for _ in range(max(1, rng.poisson(5 * area))):
        _paint_white_cell(canvas, rng, rng.uniform(44, 66) * scale)
    blurred = np.asarray(_to_image(canvas).filter(ImageFilter.GaussianBlur(0.9)), np.float32)
    return _to_image(_with_camera_noise(blurred, rng))


def _paint_red_cell(canvas: Canvas, rng: np.random.Generator, radius: float) -> None:
    center = _random_position(canvas, rng)
    _paint_disc(canvas, rng, center, radius, _Paint(RED_CELL, 0.85))
    _paint_disc(canvas, rng, center, radius * rng.uniform(0.3, 0.5), _Paint(PAPER, 0.55, softness=0.5))


def _paint_white_cell(canvas: Canvas, rng: np.random.Generator, radius: float) -> None:
    row, column = _random_position(canvas, rng)
    _paint_disc(canvas, rng, (row, column), radius, _Paint(CYTOPLASM, 0.9))
    for _ in range(rng.integers(1, 4)):
        angle, distance = rng.uniform(0, 2 * np.pi), radius * rng.uniform(0.05, 0.35)
        lobe = row + distance * np.sin(angle), column + distance * np.cos(angle)
        _paint_disc(canvas, rng, lobe, radius * rng.uniform(0.45, 0.7), _Paint(NUCLEUS, 0.9, grain=14.0))


def _random_position(canvas: Canvas, rng: np.random.Generator) -> tuple[float, float]:
    return rng.uniform(0, canvas.shape[0]), rng.uniform(0, canvas.shape[1])


@dataclass(frozen=True, slots=True)
class _Paint:
    """Color, edge and grain of a disc."""

    color: tuple[float, float, float]
    """RGB, 0 to 255."""
    opacity: float
    """Weight of the color against the canvas, 0 to 1."""
    softness: float = 0.06
    """Width of the blurred edge, as a fraction of the radius."""
    grain: float = 4.0
    """Standard deviation of the brightness noise."""


def _paint_disc(
    canvas: Canvas, rng: np.random.Generator, center: tuple[float, float], radius: float, paint: _Paint
) -> None:
    """Blend one irregular disc into the canvas, in place."""
    reach = int(radius * 1.4) + 2
    top, left = max(0, int(center[0]) - reach), max(0, int(center[1]) - reach)
    patch = canvas[top : int(center[0]) + reach, left : int(center[1]) + reach]
    if not patch.size:
        return
    rows = np.arange(top, top + patch.shape[0], dtype=np.float32)[:, None] - np.float32(center[0])
    columns = np.arange(left, left + patch.shape[1], dtype=np.float32)[None] - np.float32(center[1])
    angle = np.arctan2(rows, columns)
    wobble = 1 + sum(rng.uniform(-0.05, 0.05) * np.cos(n * angle + rng.uniform(0, 2 * np.pi)) for n in (2, 3, 5))
    distance = np.hypot(rows, columns) / (radius * wobble)
    alpha = paint.opacity * np.clip((1 - distance) / paint.softness + 0.5, 0, 1)
    pixels = np.asarray(paint.color, np.float32) + rng.normal(0, paint.grain, (*patch.shape[:2], 1)).astype(np.float32)
    patch += alpha[..., None] * (pixels - patch)


def _with_camera_noise(canvas: Canvas, rng: np.random.Generator) -> Canvas:
    """The canvas under uneven light and with sensor noise."""
    height, width = canvas.shape[:2]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None] - np.float32(rng.uniform(-0.3, 0.3))
    across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] - np.float32(rng.uniform(-0.3, 0.3))
    light = 1 - np.float32(rng.uniform(0.05, 0.12)) * (down**2 + across**2)
    noise = rng.normal(0, 3.0, canvas.shape).astype(np.float32)
    return canvas * light + noise


def _to_image(canvas: Canvas) -> Image.Image:
    return Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
