"""The command ``batchcls evaluate``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchcls.cli.libraries import extra
from batchcls.cli.options import LABELS_OF_PREDICTIONS, SPLIT_FOLDERS, TRUTH, FiniteRange, OutPath, PredictionsPlace
from batchcls.cli.printing import echo, next_line

if TYPE_CHECKING:
    from batchcls.evaluation.results import Evaluation


@click.command()
@click.argument("predictions", type=PredictionsPlace())
@TRUTH(required=True)
@click.option(
    "--out",
    type=OutPath(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write the report, the plots and metrics.json into.",
)
@click.option(
    "--group-by",
    default="",
    metavar="COLUMN|PATTERN",
    help="Groups of images that are not independent, such as all images of a patient, which the intervals resample "
    "together: the column of --truth that names the group, or a regular expression that finds the name in a path.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    help="Evaluate only the images of this split of --truth.  [default: every split]",
)
@SPLIT_FOLDERS
@click.option(
    "--error-rate",
    type=FiniteRange(0, 1),
    default=0.01,
    show_default=True,
    help="Largest error rate, as a fraction, among images that are accepted without a human; the report names the "
    "probability from which on images can be accepted.",
)
@LABELS_OF_PREDICTIONS
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Seed of the random resamples that the intervals come from.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier evaluation in --out; other files there stay.")
def evaluate(
    predictions: Path | str, truth: Path, out: Path, overwrite: bool, labels: str | None, **options: Any
) -> None:
    """Evaluate predictions against true labels.

    PREDICTIONS is the file that `batchcls run` wrote, or its URL in an object store. The report holds metrics with
    95 % intervals, the confusion matrix, the calibration of the probabilities, a probability from which on images can
    be accepted without a human, and the misclassified images.
    """
    from batchcls.networks.recipe import labels_from_argument  # after parsing: --help stays light
    from batchcls.storage.local_copies import local_copy

    with extra("report", "an evaluation"):
        from batchcls.evaluation.evaluate import EvaluationOptions, evaluate_predictions
        from batchcls.evaluation.rendering import evaluation_summary

    options["labels"] = labels_from_argument(labels) if labels else ()
    options["predictions_name"] = str(predictions)
    with local_copy(predictions) as file:
        evaluation = evaluate_predictions(EvaluationOptions(file, truth, **options), out, overwrite=overwrite)
    echo(*evaluation_summary(evaluation, out))
    chosen = ("--wrong", "24", "--truth", truth) if evaluation.errors else ("--uncertain", "24")
    explained = out.with_name("explained")
    echo(next_line("batchcls", "explain", _model(evaluation), "--from", predictions, *chosen, "--out", explained))


def _model(evaluation: "Evaluation") -> str:
    """The engine folder that made the predictions, where it is at hand; else a word in its place."""
    engine = evaluation.predictions.metadata.get("engine")
    folder = Path("engines") / str(engine.get("name") if isinstance(engine, dict) else "")
    return str(folder) if (folder / "engine.json").is_file() else "ENGINE"
