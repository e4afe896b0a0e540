"""An evaluation as a Markdown report, as the values of an HTML page, and as lines for the terminal."""

import html
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from batchcls.evaluation.advice import advise, caveats
from batchcls.evaluation.bootstrap import Estimate
from batchcls.evaluation.metrics_file import provenance_json
from batchcls.evaluation.novelty_tables import novelty_lines, novelty_sentences, novelty_table, novelty_warning
from batchcls.evaluation.results import Evaluation
from batchcls.evaluation.set_tables import set_sentences, set_tables
from batchcls.evaluation.tables import (
    OVERALL_NAMES,
    class_table,
    confusion_table,
    describe_label_issues,
    evaluation_title,
    first_labels,
    format_estimate,
    interval_method,
    label_issue_table,
    label_issues_in_short,
    match_rows,
    overall_rows,
)

_CAPTIONS = {
    "confusion.png": "Confusion matrix",
    "calibration.png": "Reliability of the top probability",
    "risk_coverage.png": "Errors among the surest images",
    "wrong.jpg": "Misclassified, the most confident first",
    "uncertain.jpg": "Least certain",
    "label_issues.jpg": "Labels that may be wrong, the likeliest first",
    "novel.jpg": "Most novel; of equally novel ones, the surest first",
}
_CARDS = ("accuracy", "balanced_accuracy", "macro_f1", "kappa")


def page_values(
    evaluation: Evaluation, picture_uris: Mapping[str, str], dark_plots: Mapping[str, tuple[str, int]]
) -> dict[str, object]:
    """The values of the template ``evaluation.html``, by name.

    Args:
        evaluation: Results to show on the page.
        picture_uris: Data URIs of the pictures that exist, by file name.
        dark_plots: Data URIs of the plots for a dark page, and their widths in pixels, by file name.
    """
    return {
        "title": evaluation_title(evaluation),
        "cards": _cards(evaluation),
        "intervals": interval_method(evaluation),
        "notes": [*caveats(evaluation), *_missing_pictures(picture_uris, evaluation)],
        "advice": advise(evaluation),
        "warning": novelty_warning(evaluation),
        "novelty": novelty_sentences(evaluation),
        "novelty_table": novelty_table(evaluation),
        "label_issues": describe_label_issues(evaluation),
        "label_issue_classes": label_issue_table(evaluation),
        "overall": overall_rows(evaluation),
        "classes": class_table(evaluation),
        "counts": confusion_table(evaluation, as_shares=False),
        "shares": confusion_table(evaluation, as_shares=True),
        "set_sentences": set_sentences(evaluation),
        "set_tables": set_tables(evaluation),
        "matched": match_rows(evaluation),
        "uris": picture_uris,
        "dark": dark_plots,
        "captions": _CAPTIONS,
        "provenance": provenance_json(evaluation),
    }


def markdown(evaluation: Evaluation, pictures: Collection[str]) -> str:
    """The report in Markdown, with links to the pictures beside it.

    Args:
        evaluation: Results to show in the report.
        pictures: File names of the pictures that exist.
    """
    engine = evaluation.predictions.metadata.get("engine")
    notes = [*caveats(evaluation), *_missing_pictures(pictures, evaluation)]
    warning, novelty = novelty_warning(evaluation), novelty_sentences(evaluation)
    captions = [(name, caption) for name, caption in _CAPTIONS.items() if name in pictures]
    parts = [
        f"# {_escape_markdown(evaluation_title(evaluation))}",
        f"**{_escape_markdown(warning)}**" if warning else "",
        "\n".join(f"- {_escape_markdown(note)}" for note in notes),
        _markdown_table([("all classes", "figure"), *overall_rows(evaluation)]),
        interval_method(evaluation),
        "## Classes",
        _markdown_table(class_table(evaluation)),
        _markdown_table(confusion_table(evaluation, as_shares=False)),
        _markdown_table(confusion_table(evaluation, as_shares=True)),
        "## What to do",
        *map(_escape_markdown, asdict(advise(evaluation)).values()),
        "## Novel and familiar images" if novelty else "",
        *map(_escape_markdown, novelty),
        _markdown_table(novelty_table(evaluation)) if novelty else "",
        "## Labels that may be wrong",
        _escape_markdown(describe_label_issues(evaluation)),
        _markdown_table(label_issue_table(evaluation)),
        "## Sets of labels",
        *map(_escape_markdown, set_sentences(evaluation)),
        *(f"{title}:\n\n{_markdown_table(table)}" for title, table in set_tables(evaluation).items()),
        "## Images",
        _markdown_table([("images", "number"), *match_rows(evaluation)]),
        *(f"{caption}:\n\n![{caption}]({name})" for name, caption in captions),
        "## Provenance",
        f"Predictions: SHA-256 `{evaluation.predictions.sha256}`, engine {_escape_markdown(str(engine))}; everything "
        "is in metrics.json, every misclassified image in wrong.csv.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def evaluation_summary(evaluation: Evaluation, out: Path) -> list[str]:
    """The main metrics in a few lines for the terminal.

    Args:
        evaluation: Results to summarize.
        out: Folder that the report was written to.
    """
    match, risk, threshold = evaluation.matched, evaluation.risk_coverage, evaluation.risk_coverage.threshold
    without, unused = match.truth_without_prediction.count, match.prediction_without_truth.count
    accepted = (
        f"{threshold.coverage:.2%} accepted from probability {np.float32(threshold.probability)!s} on"
        if threshold
        else "no threshold"
    )
    return [
        f"{match.readable:,} images judged, {evaluation.unreadable:,} unreadable -> {out / 'report.html'}",
        f"matched     by {match.by}; {without:,} labelled without prediction, {unused:,} predicted without label",
        f"accuracy    {format_estimate(evaluation.overall.accuracy)}",
        f"macro F1    {format_estimate(evaluation.overall.macro_f1)}",
        *_absent_class_lines(evaluation),
        f"calibration error {evaluation.calibration.ece:.4f}; {_temperature_in_short(evaluation)}",
        *novelty_lines(evaluation),
        f"labels      {label_issues_in_short(evaluation)}",
        f"threshold   {accepted}, for {risk.wanted_error_rate:.2%} errors at most",
        *(f"warning     {warning}" for warning in [novelty_warning(evaluation)] if warning),
        *(f"note        {note}" for note in [*evaluation.predictions.notes, *evaluation.truth.notes]),
    ]


def _temperature_in_short(evaluation: Evaluation) -> str:
    scaling, recommended = evaluation.calibration.scaling, evaluation.recommended_temperature
    if scaling is None:
        return "no temperature was fitted"
    if not evaluation.calibration.is_improved:
        return "no temperature mends it"
    if recommended is None:
        return f"{scaling.ece:.4f} with {scaling.temperature:.4f} times the engine's temperature, not said here"
    return f"{scaling.ece:.4f} with batchcls build --temperature {recommended:.4f}"


def _absent_class_lines(evaluation: Evaluation) -> list[str]:
    absent, classes = evaluation.absent_classes, len(evaluation.classes)
    if not absent.labels:
        return []
    return [
        f"            of the {classes - len(absent.labels)} classes with images; none is of "
        f"{first_labels(absent.labels)}: scikit-learn's f1_score over all {classes} is {absent.macro_f1_of_all:.4f}"
    ]


def _missing_pictures(pictures: Collection[str], evaluation: Evaluation) -> list[str]:
    """At most one sentence, on why a contact sheet is missing."""
    if "uncertain.jpg" not in pictures:
        return ["No contact sheet was made: none of the image files is where it was classified, nor below the truth."]
    if "wrong.jpg" in pictures:
        return []
    if evaluation.overall.accuracy.value == 1:
        return ["No image is misclassified."]
    return ["None of the first misclassified images is here to be shown."]


def _cards(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """Name, value and remark of each main metric, for the cards at the top of the page."""
    absent, risk = evaluation.absent_classes, evaluation.risk_coverage
    of_all = ("F1, macro, of all classes", f"{absent.macro_f1_of_all:.4f}", f"0 for {first_labels(absent.labels)}")
    return [
        *(_metric_card(evaluation, name) for name in _CARDS),
        *([of_all] if absent.labels else []),
        ("calibration error", f"{evaluation.calibration.ece:.4f}", "expected, 15 bins"),
        (
            "accepted",
            f"{risk.threshold.coverage:.1%}" if risk.threshold else "none",
            f"with {risk.wanted_error_rate:.2%} errors at most",
        ),
        ("images", f"{evaluation.matched.readable:,}", f"{evaluation.unreadable:,} unreadable"),
    ]


def _metric_card(evaluation: Evaluation, name: str) -> tuple[str, str, str]:
    estimate: Estimate = getattr(evaluation.overall, name)
    figure = "undefined" if estimate.value is None else f"{estimate.value:.4f}"
    remark = f"{estimate.low:.4f} to {estimate.high:.4f}" if estimate.low is not None else str(estimate.why)
    return OVERALL_NAMES[name], figure, remark


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = [f"| {' | '.join(map(_escape_markdown, row))} |" for row in rows]
    return "\n".join([head, "|---" * len(rows[0]) + "|", *body])


def _escape_markdown(text: str) -> str:
    """``text`` on one line, with all characters escaped that have a meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
