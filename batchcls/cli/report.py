"""``batchcls report``."""

from pathlib import Path
from typing import Any

import click

from batchcls.cli.environment import extra
from batchcls.cli.labelled_folders import LABELS_OF_PREDICTIONS
from batchcls.cli.out_path import OutPath
from batchcls.cli.run import library_noise_hidden
from batchcls.cli.terminal import echo


@click.command()
@click.argument("predictions", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=OutPath(dir_okay=False, path_type=Path), required=True, help="The HTML file.")
@click.option(
    "--images",
    type=click.IntRange(0, 1000),
    default=24,
    show_default=True,
    help="How many of the least certain images to show.",
)
@click.option(
    "--rows",
    type=click.IntRange(1, 500_000),
    default=100_000,
    show_default=True,
    help="How many rows the table may hold: unreadable ones first, then the least certain.",
)
@LABELS_OF_PREDICTIONS
@click.option("--overwrite", is_flag=True, help="Replace an existing file, once the new one is whole.")
def report(predictions: Path, out: Path, labels: str | None, **options: Any) -> None:
    """Show what `batchcls run` wrote to PREDICTIONS as one page, which needs no network and no other file."""
    from batchcls.networks.recipe import labels_of  # after parsing: --help stays light

    with extra("report", "a report"):
        from batchcls.evaluation.report import write_report

    order = labels_of(labels) if labels else ()
    with library_noise_hidden():
        made = write_report(predictions, out, labels=order, **options)
    echo(f"{made.rows:,} rows, {made.unreadable:,} unreadable -> {out}")
    for note in made.notes:
        echo(f"note: {note}")
