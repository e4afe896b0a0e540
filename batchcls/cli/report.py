"""The command ``batchcls report``."""

from pathlib import Path
from typing import Any

import click

from batchcls.cli.libraries import extra, library_noise_hidden
from batchcls.cli.options import LABELS_OF_PREDICTIONS, OutPath, PredictionsPlace
from batchcls.cli.printing import echo, next_line


@click.command()
@click.argument("predictions", type=PredictionsPlace())
@click.option("--out", type=OutPath(dir_okay=False, path_type=Path), required=True, help="HTML file to write.")
@click.option(
    "--images",
    type=click.IntRange(0, 1000),
    default=24,
    show_default=True,
    help="Number of the least certain images to show, and of the most novel ones.",
)
@click.option(
    "--rows",
    type=click.IntRange(1, 500_000),
    default=100_000,
    show_default=True,
    help="Largest number of rows in the table of the page: unreadable files first, then the least certain images.",
)
@LABELS_OF_PREDICTIONS
@click.option("--overwrite", is_flag=True, help="Replace an existing file when the new one is whole.")
def report(predictions: Path | str, out: Path, labels: str | None, overwrite: bool, **options: Any) -> None:
    """Report on predictions in one HTML page.

    PREDICTIONS is the file that `batchcls run` wrote, or its URL in an object store. The page shows how many images
    have each label, the probabilities, the least certain images, the unreadable files, and a table of rows to filter
    and to sort; it needs no network and no other file.
    """
    from batchcls.networks.recipe import labels_from_argument  # after parsing: --help stays light
    from batchcls.storage.local_copies import local_copy

    with extra("report", "a report"):
        from batchcls.evaluation.report import ReportOptions, write_report

    options["labels"] = labels_from_argument(labels) if labels else ()
    with library_noise_hidden(), local_copy(predictions) as file:
        summary = write_report(file, out, ReportOptions(**options), overwrite=overwrite)
    echo(f"{summary.rows:,} rows, {summary.unreadable:,} unreadable -> {out}")
    for warning in summary.warnings:
        echo(f"warning: {warning}")
    for note in summary.notes:
        echo(f"note: {note}")
    if summary.rows > summary.unreadable:
        evaluation = out.with_name("evaluation")
        echo(next_line("batchcls", "evaluate", predictions, "--truth", "LABELED_FOLDER", "--out", evaluation))
