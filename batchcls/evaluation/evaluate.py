"""Evaluate a predictions file against true labels, and write metrics, plots, pictures and reports."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from batchcls.errors import LabelsError
from batchcls.evaluation.bootstrap import RESAMPLES, estimate_metrics
from batchcls.evaluation.calibration import measure_calibration
from batchcls.evaluation.conformal import measure_conformal_sets
from batchcls.evaluation.html import render_page
from batchcls.evaluation.image_listings import image_csv, image_sheet, label_issue_csv
from batchcls.evaluation.label_issues import judge_labels
from batchcls.evaluation.labeled_predictions import LabeledPredictions
from batchcls.evaluation.matched_images import MatchedImages, match_images
from batchcls.evaluation.metrics import absent_classes, confusion_matrix
from batchcls.evaluation.metrics_file import metrics_json
from batchcls.evaluation.novelty_accuracy import accuracy_by_novelty, is_not_novel
from batchcls.evaluation.output_folder import check_evaluation_folder, open_evaluation_folder
from batchcls.evaluation.plots import (
    DARK,
    LIGHT,
    Theme,
    calibration_plot,
    confusion_plot,
    page_width,
    risk_coverage_plot,
)
from batchcls.evaluation.rendering import markdown, page_values
from batchcls.evaluation.results import ClassResult, Evaluation, PredictionsSummary, TruthSummary
from batchcls.evaluation.risk_coverage import risk_coverage_curve
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.images.thumbnails import data_uri
from batchcls.predictions.answer_columns import NOVEL, NOVELTY
from batchcls.predictions.integrity import predictions_digest, rewrite_notes
from batchcls.predictions.reader import PredictionsFile
from batchcls.storage.file_names import printable

_NO_SPLIT_NOTE = (
    "The truth has splits and no --split was given: the engine may have been trained on some of these images."
)
_SHEET_IMAGES = 24
_MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class EvaluationOptions:
    """Inputs and settings of an evaluation."""

    predictions: Path
    """Predictions file of `batchcls run`."""
    truth: Path
    """Folder of class folders, or CSV or Parquet table, that names the true labels."""
    group_by: str = ""
    """Column of the truth, or regular expression on paths, that names an image's group; empty: none."""
    split: str | None = None
    """Split of the truth to evaluate, train, val or test; None: all splits."""
    error_rate: float = 0.01
    """Largest error rate allowed among accepted images, 0 to 1."""
    seed: int = 0
    """Seed of the bootstrap, of cross-validation, and of the halves for conformal sets."""
    split_folders: str = ""
    """Folders that hold the class folders of a split; see `LabeledImages.read`."""
    labels: tuple[str, ...] = ()
    """Labels in the order of the probabilities, for a predictions file that has lost its metadata."""
    predictions_name: str = ""
    """Name of the predictions file in the report, if it is a copy; empty: its path."""


def evaluate_predictions(options: EvaluationOptions, out: Path, *, overwrite: bool = False) -> Evaluation:
    """Write an evaluation into the folder ``out``, and return its results.

    Args:
        options: Inputs and settings of the evaluation.
        out: Folder of the report; created if it is missing.
        overwrite: Whether files of an earlier evaluation may be replaced, once the new files are whole.

    Raises:
        LabelsError: If the predictions or the truth cannot be used, or have no image in common.
        OutputError: If ``out`` may not, or cannot, be written.
    """
    check_evaluation_folder(out, (options.predictions, options.truth), overwrite=overwrite)
    with open_evaluation_folder(out) as write:
        evaluation, matched = _evaluate(options)
        write(_files(evaluation, matched))
    return evaluation


def _evaluate(options: EvaluationOptions) -> tuple[Evaluation, MatchedImages]:
    if options.truth.samefile(options.predictions):
        raise LabelsError(
            f"--truth {str(options.truth)!r} is the predictions file itself; name a folder or a table of true labels"
        )
    predictions = PredictionsFile.read(options.predictions, options.labels, (NOVELTY, NOVEL))
    predictions.check_labels(options.labels)
    labeled = LabeledImages.read(options.truth, options.group_by, options.split_folders, predictions.labels)
    table = labeled.of_split(options.split, options.truth)
    matched = match_images(predictions, options.truth, table, labeled.root, options.seed)
    images = matched.predictions
    counts = confusion_matrix(images.truth, images.predicted, images.classes)
    overall, classes = estimate_metrics(images, options.seed)
    rows = replace(predictions, table=matched.rows)
    named = zip(predictions.labels, counts.sum(axis=1).tolist(), counts.sum(axis=0).tolist(), classes, strict=True)
    evaluation = Evaluation(
        predictions=_predictions_summary(options, predictions),
        truth=_truth_summary(options, labeled, len(table), has_splits="split" in table.column_names),
        seed=options.seed,
        resamples=RESAMPLES,
        matched=matched.counts,
        groups=matched.groups,
        overall=overall,
        classes=tuple(ClassResult(*values) for values in named),
        absent_classes=absent_classes(counts, predictions.labels),
        confusion=counts,
        calibration=measure_calibration(images, options.seed),
        risk_coverage=risk_coverage_curve(images.top, images.correct, options.error_rate),
        label_issues=judge_labels(images),
        novelty=accuracy_by_novelty(rows, images),
        conformal=measure_conformal_sets(images.rows(is_not_novel(rows)), predictions.labels, options.seed),
    )
    return evaluation, matched


def _predictions_summary(options: EvaluationOptions, predictions: PredictionsFile) -> PredictionsSummary:
    return PredictionsSummary(
        path=printable(options.predictions_name or str(options.predictions)),
        sha256=predictions_digest(options.predictions),
        rows=len(predictions.table),
        metadata=json.loads(json.dumps(predictions.metadata), parse_constant=lambda _: None),
        notes=tuple(rewrite_notes(predictions.metadata, predictions.labels, len(predictions.table))),
    )


def _truth_summary(options: EvaluationOptions, labeled: LabeledImages, rows: int, *, has_splits: bool) -> TruthSummary:
    return TruthSummary(
        path=printable(str(options.truth)),
        rows=rows,
        group_by=options.group_by or None,
        split=options.split,
        has_splits=has_splits,
        left_out=len(labeled.table) - rows,
        unlabeled=labeled.unlabeled,
        split_folders=options.split_folders or None,
        notes=(*labeled.notes, *([_NO_SPLIT_NOTE] if has_splits and not options.split else [])),
    )


def _files(evaluation: Evaluation, matched: MatchedImages) -> dict[str, bytes | None]:
    """Content by file name, None for a picture that cannot be made; last metrics.json, a sign that all is complete."""
    most_confident_wrong = _wrong_rows(matched.predictions)
    least_certain = np.argsort(matched.predictions.top, kind="stable")
    issues = evaluation.label_issues
    most_novel = evaluation.novelty.most_novel if evaluation.novelty else np.empty(0, np.int64)
    pictures = {
        **_plots(evaluation, LIGHT),
        "wrong.jpg": image_sheet(matched, most_confident_wrong[:_SHEET_IMAGES], evaluation.labels),
        "uncertain.jpg": image_sheet(matched, least_certain[:_SHEET_IMAGES], evaluation.labels),
        "label_issues.jpg": image_sheet(matched, issues.rows[:_SHEET_IMAGES], evaluation.labels),
        "novel.jpg": image_sheet(matched, most_novel[:_SHEET_IMAGES], evaluation.labels),
    }
    uris = {name: data_uri(content, _MEDIA_TYPES[Path(name).suffix]) for name, content in pictures.items() if content}
    return {
        **pictures,
        "wrong.csv": image_csv(matched, most_confident_wrong),
        "label_issues.csv": label_issue_csv(matched, issues),
        "report.html": render_page("evaluation", **page_values(evaluation, uris, _dark_plots(evaluation))).encode(),
        "report.md": markdown(evaluation, uris.keys()).encode(),
        "metrics.json": metrics_json(evaluation),
    }


def _plots(evaluation: Evaluation, theme: Theme) -> dict[str, bytes]:
    """Each plot by its file name."""
    return {
        "confusion.png": confusion_plot(evaluation.confusion, evaluation.labels, theme),
        "calibration.png": calibration_plot(evaluation.calibration, theme),
        "risk_coverage.png": risk_coverage_plot(evaluation.risk_coverage, theme),
    }


def _dark_plots(evaluation: Evaluation) -> dict[str, tuple[str, int]]:
    """Data URI and width of each plot for a dark page, by the file name of the plot for a light one."""
    plots = _plots(evaluation, DARK)
    return {name: (data_uri(content, "image/png"), page_width(content)) for name, content in plots.items()}


def _wrong_rows(images: LabeledPredictions) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Positions of the misclassified images, the most confident first."""
    wrong = np.flatnonzero(~images.correct)
    return wrong[np.argsort(-images.top[wrong], kind="stable")]
