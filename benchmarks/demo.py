"""A demonstration: classify drawn images, as a first user would."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from batchcls.cli.libraries import library_noise_hidden
from batchcls.cli.run_summary import run_summary
from batchcls.inference.options import RunOptions
from batchcls.inference.run import classify_images
from benchmarks.workload import FIELDS

_IMAGES = 256
_EXCERPT_ROWS = 8


def run_demo(engine: Path, folder: Path) -> None:
    """Draw microscope fields below ``folder``, classify them, and print the first rows and the summary.

    Args:
        engine: Engine folder.
        folder: Folder for the images and the predictions file.
    """
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"drawing {_IMAGES} fields of {FIELDS.width_px}x{FIELDS.height_px} pixels below {folder} ...")
    slides = replace(FIELDS, images=_IMAGES).draw(folder)
    out = folder / "preds.parquet"
    with library_noise_hidden() as progress:
        stats = classify_images([slides], engine, out, RunOptions(device="cpu", overwrite=True), progress)
    console.print(f"\nthe first {_EXCERPT_ROWS} of {stats.rows} rows:")
    for row in pq.read_table(out).slice(0, _EXCERPT_ROWS).to_pylist():
        probabilities = " ".join(f"{probability:.3f}" for probability in row["probabilities"])
        console.print(f"  {row['path']}  {row['label']:<8} {row['probability']:.3f}  [{probabilities}]", markup=False)
    console.print("", *run_summary(stats, out), sep="\n")
    console.print(
        "\nThese images are drawn: they show no patient and have no true label, and the engine finds all of them "
        "novel. What the labels above show is that every file has its row, and how fast."
    )
