"""``python -m benchmarks.drift_table``: which changes of real images the drift of a run names, and its false alarms."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from batchcls.engine.drift import Drift, measure_drift
from batchcls.engine.drift_reference import BLOCK_IMAGES, DriftReference
from batchcls.engine.measure_sums import MeasureSums, ReferenceSums
from batchcls.engine.measures import APPEARANCE_MEASURES, image_measures
from batchcls.networks.appearance import appearance
from batchcls.storage.natural_order import natural_key
from benchmarks.checkout import THIS_CHECKOUT
from benchmarks.record import checkout_commit

_REFERENCE_PART = 0.8
"""Part of each class, by file name, that is the reference; the rest is altered."""
_DRAWS = 200
"""Random sets of 64 images of each alteration."""
_SIDE = 224
Measures = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]


def _hue(image: Image.Image) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = hue.point(lambda step: (step + round(10 * 256 / 360)) % 256)
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _jpeg(image: Image.Image) -> Image.Image:
    stream = BytesIO()
    image.save(stream, "JPEG", quality=20)
    return Image.open(stream).convert("RGB")


ALTERATIONS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "none": ("-", lambda image: image),
    "hue +10 degrees": ("color", _hue),
    "brightness +10 %": ("brightness", lambda image: image.point(lambda value: min(255, round(1.1 * value)))),
    "blur 1.5 px": ("sharpness", lambda image: image.filter(ImageFilter.GaussianBlur(1.5))),
    "JPEG quality 20": ("compression", _jpeg),
}
"""The kind that has to be named, and the alteration of an image as it lies on the disk."""


@dataclass(frozen=True, slots=True)
class ClassFolders:
    """Images by class folder, each class in the natural order of its names."""

    files: list[Path]
    codes: Codes
    is_reference: npt.NDArray[np.bool_]
    labels: list[str]

    @classmethod
    def read(cls, folder: Path) -> "ClassFolders":
        labels = sorted(path.name for path in folder.iterdir() if path.is_dir())
        files, codes, parts = [], [], []
        for code, label in enumerate(labels):
            names = sorted((folder / label).iterdir(), key=lambda path: natural_key(path.name))
            files += names
            codes += [code] * len(names)
            parts += [place < int(_REFERENCE_PART * len(names)) for place in range(len(names))]
        return cls(files, np.array(codes), np.array(parts), labels)

    def measures(self, alter: Callable[[Image.Image], Image.Image], rows: npt.NDArray[np.bool_]) -> Measures:
        return np.concatenate(
            [image_measures(appearance(_pixels(self.files[row], alter))) for row in np.flatnonzero(rows)]
        )


def _pixels(file: Path, alter: Callable[[Image.Image], Image.Image]) -> npt.NDArray[np.uint8]:
    image = alter(Image.open(file).convert("RGB"))
    sized = image if image.size == (_SIDE, _SIDE) else image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.asarray(sized)[None]


def _reference(measures: Measures, codes: Codes, labels: list[str]) -> DriftReference:
    sums = ReferenceSums(APPEARANCE_MEASURES, len(labels))
    sums.add(measures, codes)
    reference = sums.reference()
    if reference is None:
        raise click.ClickException("too few images for a reference: 6 blocks of 64, and 4 blocks more than labels")
    return reference


def _drift(reference: DriftReference, measures: Measures, codes: Codes, labels: list[str]) -> Drift:
    sums = MeasureSums(APPEARANCE_MEASURES, len(labels))
    sums.add(measures, codes)
    return measure_drift(sums, reference, labels)


def _named(drift: Drift) -> str:
    """The first kind, without that of labels, of which a block in one class folder has others by itself."""
    return next((effect.kind for effect in drift.effects if effect.is_drift and effect.is_cause), "-")


def _blocks(images: int) -> Iterator[npt.NDArray[np.int64]]:
    yield from np.arange(images // BLOCK_IMAGES * BLOCK_IMAGES).reshape(-1, BLOCK_IMAGES)


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="JSON file to append the record to, one line a folder.")
def main(folder: Path, out: Path | None) -> None:
    """Measure the drift of altered images of FOLDER, which holds class folders, against its first four fifths."""
    images, generator = ClassFolders.read(folder), np.random.default_rng(0)
    codes, rest = images.codes[images.is_reference], images.codes[~images.is_reference]
    own = images.measures(ALTERATIONS["none"][1], images.is_reference)
    reference, alarms = _reference(own, codes, images.labels), 0
    for block in _blocks(len(own)):
        others = _reference(np.delete(own, block, 0), np.delete(codes, block), images.labels)
        alarms += _named(_drift(others, own[block], codes[block], images.labels)) != "-"
    draws = [generator.choice(len(own), BLOCK_IMAGES, replace=False) for _ in range(_DRAWS)]
    random_alarms = sum(_drift(reference, own[rows], codes[rows], images.labels).kinds != () for rows in draws)
    alterations: dict[str, object] = {}
    for name, (kind, alter) in ALTERATIONS.items():
        measures = images.measures(alter, ~images.is_reference)
        sets = [generator.choice(len(rest), BLOCK_IMAGES, replace=False) for _ in range(_DRAWS)]
        drifts = {
            part: [_drift(reference, measures[rows], rest[rows], images.labels) for rows in of_part]
            for part, of_part in (("random", sets), ("consecutive", list(_blocks(len(rest)))))
        }
        effects = [{effect.kind: effect.effect for effect in drift.effects} for drift in drifts["random"]]
        alterations[name] = {
            "expected": kind,
            **{part: dict(Counter(map(_named, of_part))) for part, of_part in drifts.items()},
            "median_effects": {each: round(float(np.median([e[each] for e in effects])), 2) for each in effects[0]},
        }
    record = {
        "folder": folder.name,
        "commit": checkout_commit(THIS_CHECKOUT),
        "reference_images": len(own),
        "blocks": reference.blocks,
        "alarms_of_own_blocks": alarms,
        "alarms_of_random_sets": f"{random_alarms} of {_DRAWS}",
        "alterations": alterations,
    }
    click.echo(json.dumps(record, indent=1))
    if out:
        with out.open("a") as stream:
            stream.write(f"{json.dumps(record)}\n")


if __name__ == "__main__":
    main()
