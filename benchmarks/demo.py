"""The main job on drawn images: what a first user sees."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console

from batchcls.cli.run import library_noise_hidden, summary
from batchcls.inference.options import RunOptions
from batchcls.inference.run import classify_images
from benchmarks.workload import FIELDS

_IMAGES = 256
_SHOWN_ROWS = 8


def show(engine: Path, folder: Path) -> None:
    """Draw a folder of fields below ``folder``, run ``engine`` over it, and print the first rows and the summary."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"drawing {_IMAGES} fields of {FIELDS.width_px}x{FIELDS.height_px} pixels below {folder} ...")
    slides = replace(FIELDS, images=_IMAGES).draw(folder)
    out = folder / "preds.parquet"
    with library_noise_hidden() as progress:
        tally = classify_images([slides], engine, out, RunOptions(device="cpu", overwrite=True), progress)
    console.print(f"\nthe first {_SHOWN_ROWS} of {tally.rows} rows:")
    for row in pq.read_table(out).slice(0, _SHOWN_ROWS).to_pylist():
        shares = " ".join(f"{share:.3f}" for share in row["probabilities"])
        console.print(f"  {row['path']}  {row['label']:<8} {row['probability']:.3f}  [{shares}]", markup=False)
    console.print("", *summary(tally, out), sep="\n")
    console.print(
        "\nThese images are drawn: they show no patient and have no true label. What the labels above show is that "
        "every file has its row, and how fast."
    )
