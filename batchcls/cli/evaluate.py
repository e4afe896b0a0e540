"""``batchcls evaluate``."""

from pathlib import Path
from typing import Any

import click

from batchcls.cli.environment import extra
from batchcls.cli.finite import FiniteRange
from batchcls.cli.labelled_folders import LABELS_OF_PREDICTIONS, SPLIT_FOLDERS
from batchcls.cli.out_path import OutPath
from batchcls.cli.terminal import echo


@click.command()
@click.argument("predictions", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--truth",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="A folder with a folder of images for each class; or a CSV or Parquet file with the columns path and label.",
)
@click.option("--out", type=OutPath(file_okay=False, path_type=Path), required=True, help="The report's folder.")
@click.option(
    "--group-by",
    default="",
    metavar="COLUMN|PATTERN",
    help="What images share that are not independent, such as a patient: a column of the truth, or a regular "
    "expression that finds it in a path. Intervals resample groups.",
)
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="The rows of the truth to use.")
@SPLIT_FOLDERS
@click.option(
    "--error-rate",
    type=FiniteRange(0, 1),
    default=0.01,
    show_default=True,
    help="The most among images that are accepted without a human; a threshold is found for it.",
)
@LABELS_OF_PREDICTIONS
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the intervals.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier evaluation in --out; other files there stay.")
def evaluate(predictions: Path, truth: Path, out: Path, overwrite: bool, labels: str | None, **options: Any) -> None:
    """Compare what `batchcls run` wrote with the truth: figures with intervals, calibration, a threshold, a report."""
    from batchcls.networks.recipe import labels_of  # after parsing: --help stays light

    with extra("report", "an evaluation"):
        from batchcls.evaluation.evaluate import EvaluationOptions, evaluate_predictions
        from batchcls.evaluation.rendering import summary

    options["labels"] = labels_of(labels) if labels else ()
    metrics = evaluate_predictions(EvaluationOptions(predictions, truth, **options), out, overwrite=overwrite)
    echo(*summary(metrics, out))
