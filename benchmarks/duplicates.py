"""``python -m benchmarks.duplicates``: which copies `batchcls find-duplicates` finds, and how fast."""

import csv
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import click
import numpy as np
from PIL import Image

from batchcls import machine
from benchmarks.workload import draw_field

KINDS = ("bytes", "pixels", "recompressed", "resized", "turned", "mirrored", "all")
"""What was done to a copy; ``all``: resized, mirrored, turned and recompressed."""
_SIDE_PX = 224
_SMALLEST_CROP, _LARGEST_CROP = 0.45, 0.7
"""Sides of the crops that make many images of one, as fractions of its shorter side."""
_QUALITY, _SCALE = (30, 95), (0.8, 1.25)
_TURNS = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)


@dataclass(frozen=True, slots=True)
class CopiedImages:
    """A folder of different images and of copies of some, whose file names say what they are."""

    folder: Path
    images: int
    """Number of files."""
    copies: float
    """Fraction of the files that are copies."""
    sources: tuple[str, ...] = ()
    """Image files of which the images are crops; none: the images are drawn."""

    def make(self) -> None:
        """Write the files."""
        self.folder.mkdir(parents=True)
        originals = self.images - round(self.images * self.copies)
        with ProcessPoolExecutor(machine.cores()) as pool:
            numbers = range(originals)
            list(pool.map(partial(self._make_one, self.images - originals), numbers, chunksize=64))

    def _make_one(self, copied: int, number: int) -> None:
        """Write an image, and its copy if it is one of the first ``copied``."""
        rng = np.random.default_rng((7, number))
        source = number % len(self.sources) if self.sources else number
        image = self._crop(source, rng) if self.sources else draw_field(rng, _SIDE_PX, _SIDE_PX)
        stem = self.folder / f"{number:07d}-{source:07d}"
        data = _jpeg(image, int(rng.integers(80, 96)))
        Path(f"{stem}.jpg").write_bytes(data)
        if number < copied:
            kind = KINDS[number % len(KINDS)]
            ending = "png" if kind == "pixels" else "jpg"
            Path(f"{stem}-{kind}.{ending}").write_bytes(_copy(data, kind, rng))

    def _crop(self, source: int, rng: np.random.Generator) -> Image.Image:
        """A crop at a random place, with random brightness."""
        with Image.open(self.sources[source]) as opened:
            image = opened.convert("RGB")
        side = min(image.size) * rng.uniform(_SMALLEST_CROP, _LARGEST_CROP)
        left, top = (rng.uniform(0, length - side) for length in image.size)
        box = (left, top, left + side, top + side)
        crop = image.resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BILINEAR, box)
        factor = rng.uniform(0.85, 1.0)
        return crop.point(lambda level: level * factor)


def _copy(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """A file of the image in another file, made in one of `KINDS`."""
    if kind == "bytes":
        return data
    image: Image.Image = Image.open(io.BytesIO(data))
    if kind == "pixels":
        stream = io.BytesIO()
        image.save(stream, "PNG")
        return stream.getvalue()
    if kind in ("resized", "all"):
        side = round(_SIDE_PX * rng.uniform(*_SCALE))
        image = image.resize((side, side), Image.Resampling.BICUBIC)
    if kind == "mirrored" or (kind == "all" and rng.random() < 0.5):
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if kind in ("turned", "all"):
        image = image.transpose(_TURNS[rng.integers(3)])
    return _jpeg(image, int(rng.integers(_QUALITY[0], _QUALITY[1] + 1)))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def recall_lines(folder: Path, pairs: Path) -> list[str]:
    """How many copies of each kind ``pairs`` names, and the pairs that are no copies, as lines of a Markdown table."""
    made = Counter(name.rpartition("-")[2].partition(".")[0] for name in os.listdir(folder) if name.count("-") == 2)
    with pairs.open(newline="") as stream:
        rows = [sorted((row["path"], row["of_path"])) for row in csv.DictReader(stream)]
    hits, others = Counter[str](), Counter[str]()
    for first, second in rows:
        image, copy = (first, second) if len(first) < len(second) else (second, first)
        if copy.startswith(image.partition(".")[0] + "-"):
            hits[copy.rpartition("-")[2].partition(".")[0]] += 1
        else:
            others["same" if image.split("-")[1][:7] == copy.split("-")[1][:7] else "another"] += 1
    lines = ["| copy | made | found | recall |", "|---|---|---|---|"]
    lines += [f"| {kind} | {made[kind]:,} | {hits[kind]:,} | {hits[kind] / made[kind]:.2%} |" for kind in KINDS]
    return [*lines, "", f"Other pairs: {others['same']:,} of one source, {others['another']:,} of two."]


@click.command()
@click.option("--images", type=click.IntRange(100), default=100_000, show_default=True, help="Number of files.")
@click.option("--copies", type=click.FloatRange(0.01, 0.5), default=0.1, show_default=True, help="Fraction of copies.")
@click.option("--from", "source", type=click.Path(exists=True, path_type=Path), help="Folder of images to crop.")
@click.option("--folder", type=click.Path(path_type=Path), help="Folder of the files, kept and used again.")
def main(images: int, copies: float, source: Path | None, folder: Path | None) -> None:
    """Make many images with copies of some in a temporary folder, search it, and print recall, time and memory."""
    scratch = Path(tempfile.mkdtemp(prefix="batchcls-duplicates-"))
    try:
        files = sorted(str(path) for path in source.rglob("*.jpg")) if source else []
        copied = CopiedImages(folder or scratch / "images", images, copies, tuple(files))
        if not copied.folder.exists():
            copied.make()
        pairs = scratch / "pairs.csv"
        command = [sys.executable, "-m", "batchcls", "find-duplicates", str(copied.folder), "--out", str(pairs)]
        started = perf_counter()
        summary = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        elapsed_s = perf_counter() - started
        usage = resource.getrusage(
            resource.RUSAGE_CHILDREN
        )  # of the one command, and of the processes that made images
        click.echo(
            f"{machine.cpu_model()}, {machine.cores()} cores: {elapsed_s:,.1f} s, largest process "
            f"{usage.ru_maxrss / 1024:,.0f} MiB\n\n{summary}"
        )
        click.echo("\n".join(recall_lines(copied.folder, pairs)))
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
