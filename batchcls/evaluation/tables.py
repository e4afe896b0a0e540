"""Metrics of an evaluation as text and tables, shared by the HTML page, the Markdown report and the terminal."""

from collections.abc import Sequence

from batchcls.evaluation.bootstrap import Estimate
from batchcls.evaluation.results import Evaluation, Unmatched

_MAX_LABELS = 8
OVERALL_NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "precision, macro",
    "macro_recall": "recall, macro",
    "macro_f1": "F1, macro",
    "macro_roc_auc": "ROC AUC, macro, one against the rest",
    "macro_pr_auc": "PR AUC, macro, one against the rest",
    "kappa": "Cohen's kappa",
}
"""Displayed name of each field of `OverallMetrics`, in the order of a table."""
_CLASS_NAMES = {"precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC AUC", "pr_auc": "PR AUC"}

Table = list[list[str]]
"""Rows of cells, the head first."""


def evaluation_title(evaluation: Evaluation) -> str:
    """The names of the predictions and of the truth, as a title."""
    return f"Evaluation of {evaluation.predictions.path} on {evaluation.truth.path}"


def format_estimate(estimate: Estimate) -> str:
    """A metric with its interval in brackets, or with the reason why value or interval is missing."""
    if estimate.value is None:
        return f"undefined: {estimate.why}"
    if estimate.low is None:
        return f"{estimate.value:.4f} ({estimate.why})"
    return f"{estimate.value:.4f} ({estimate.low:.4f} to {estimate.high:.4f})"


def interval_method(evaluation: Evaluation) -> str:
    """One sentence on how the intervals were computed."""
    by = f"{evaluation.groups:,} groups" if evaluation.groups else "images"
    return (
        f"In brackets: 95 % intervals of {evaluation.resamples:,} bootstrap resamples of {by}, seed {evaluation.seed}; "
        f"Wilson's intervals, of the number of {'groups' if evaluation.groups else 'images'}, where all are right or "
        "all are wrong."
    )


def overall_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Name and value of each metric over all classes."""
    rows = [(name, format_estimate(getattr(evaluation.overall, key))) for key, name in OVERALL_NAMES.items()]
    absent, calibration = evaluation.absent_classes, evaluation.calibration
    if absent.labels:
        place = list(OVERALL_NAMES).index("macro_f1") + 1
        rows.insert(place, (f"F1, macro, with 0 for {first_labels(absent.labels)}", f"{absent.macro_f1_of_all:.4f}"))
    accuracy = evaluation.accuracy_with_unreadable_as_wrong
    rows.insert(1, ("accuracy, unreadable images counted as wrong", f"{accuracy:.4f}"))
    return [
        *rows,
        ("expected calibration error, 15 bins", f"{calibration.ece:.4f}"),
        ("Brier score, 0 to 2", f"{calibration.brier:.4f}"),
        ("negative log likelihood", f"{calibration.nll:.4f}"),
        ("area under the risk-coverage curve", f"{evaluation.risk_coverage.aurc:.3g}"),
    ]


def class_table(evaluation: Evaluation) -> Table:
    """A table with the numbers of images and the metrics of each class, a row per class."""
    rows = [
        [
            result.label,
            f"{result.images:,}",
            f"{result.predicted:,}",
            *(format_estimate(getattr(result.metrics, key)) for key in _CLASS_NAMES),
        ]
        for result in evaluation.classes
    ]
    return [["class", "images", "predicted", *_CLASS_NAMES.values()], *rows]


def confusion_table(evaluation: Evaluation, *, as_shares: bool) -> Table:
    """The confusion matrix as numbers of images, or as shares of each row."""
    labels, counts = evaluation.labels, evaluation.confusion.tolist()
    rows = [[f"{count / max(sum(row), 1):.2%}" if as_shares else f"{count:,}" for count in row] for row in counts]
    return [["truth, by row", *labels], *([label, *row] for label, row in zip(labels, rows, strict=True))]


def match_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Names and numbers of the images that were compared, and of those that were not."""
    match = evaluation.matched
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(match.unreadable.items()))
    return [
        ("labelled and predicted", f"{match.images:,}, matched by {match.by}"),
        ("of those readable", f"{match.readable:,}"),
        ("unreadable", kinds or "none"),
        ("truth without prediction", _describe_unmatched(match.truth_without_prediction)),
        ("prediction without truth", _describe_unmatched(match.prediction_without_truth)),
        ("labelled rows of other splits, or of none", f"{evaluation.truth.left_out:,}"),
    ]


def label_issue_table(evaluation: Evaluation) -> Table:
    """The number of candidates for wrong labels of each class that has some; the head alone where there are none."""
    issues = zip(evaluation.classes, evaluation.label_issues.by_class, strict=True)
    rows = [[result.label, f"{result.images:,}", f"{count:,}"] for result, count in issues if count]
    return [["given label", "images", "may be wrong"], *rows]


def describe_label_issues(evaluation: Evaluation) -> str:
    """Sentences on the labels of the truth that may be wrong, and on what such a listing cannot see."""
    issues = evaluation.label_issues
    if issues.why:
        return f"No label of the truth was judged: {issues.why}."
    single = [result.label for result in evaluation.classes if result.images == 1]
    unjudged = f" The label of the one image of {first_labels(single)} was not judged." if single else ""
    return (
        f"{len(issues.rows):,} of {evaluation.matched.readable:,} labels may be wrong: candidates to look at, and no "
        "verdict. For each, the engine prefers another label so clearly that confident learning (cleanlab) takes the "
        "label rather than the engine to be at fault. All are in label_issues.csv. An engine that was trained on these "
        "labels has learned their errors and hides them: trust this listing on images that the engine has not seen."
        + unjudged
    )


def label_issues_in_short(evaluation: Evaluation) -> str:
    """The number of labels that may be wrong, for the terminal."""
    issues = evaluation.label_issues
    if issues.why:
        return f"not judged: {issues.why}"
    return f"{len(issues.rows):,} may be wrong, candidates to look at in label_issues.csv"


def first_labels(labels: Sequence[str]) -> str:
    """The first eight labels, and how many more there are."""
    more = f" and {len(labels) - _MAX_LABELS} more" if len(labels) > _MAX_LABELS else ""
    return ", ".join(labels[:_MAX_LABELS]) + more


def _describe_unmatched(images: Unmatched) -> str:
    examples = f": {', '.join(images.examples)}" if images.count else ""
    more = " ..." if images.count > len(images.examples) else ""
    return f"{images.count:,}{examples}{more}"
