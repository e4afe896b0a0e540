"""What an evaluation found, as tables and text: for a page, for Markdown, and for a terminal."""

import html
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_PLOTS = {
    "confusion.png": "Confusion matrix",
    "calibration.png": "Reliability of the top probability",
    "risk_coverage.png": "Errors among the surest images",
    "wrong.jpg": "Misclassified, the most confident first",
    "uncertain.jpg": "Least certain",
}
_SHOWN = 8
_OVERALL = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_precision": "precision, macro",
    "macro_recall": "recall, macro",
    "macro_f1": "F1, macro",
    "macro_roc_auc": "ROC AUC, macro, one against the rest",
    "macro_pr_auc": "PR AUC, macro, one against the rest",
    "kappa": "Cohen's kappa",
}
_OF_CLASS = {"precision": "precision", "recall": "recall", "f1": "F1", "roc_auc": "ROC AUC", "pr_auc": "PR AUC"}


def title(metrics: Mapping[str, Any]) -> str:
    """What was evaluated on what."""
    return f"Evaluation of {metrics['predictions']['path']} on {metrics['truth']['path']}"


def estimate(found: Mapping[str, Any]) -> str:
    """A figure with its interval, or why there is none."""
    if found["value"] is None:
        return f"undefined: {found['why']}"
    if found["low"] is None:
        return f"{found['value']:.4f} ({found['why']})"
    return f"{found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f})"


def intervals(metrics: Mapping[str, Any]) -> str:
    """How the intervals came to be."""
    by = f"{metrics['groups']:,} groups" if metrics["groups"] else "images"
    return (
        f"In brackets: 95 % intervals of {metrics['resamples']:,} bootstrap resamples of {by}, seed {metrics['seed']}."
    )


def overall(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and figures of all classes together."""
    rows = [(name, estimate(metrics["overall"][key])) for key, name in _OVERALL.items()]
    if (none := metrics["classes_without_images"])["labels"]:
        place = list(_OVERALL).index("macro_f1") + 1
        rows.insert(place, (f"F1, macro, with 0 for {_few(none['labels'])}", f"{none['macro_f1_of_all']:.4f}"))
    accuracy, calibrated = metrics["accuracy_with_unreadable_as_wrong"], metrics["calibration"]
    rows.insert(1, ("accuracy, unreadable images counted as wrong", f"{accuracy:.4f}"))
    return [
        *rows,
        ("expected calibration error, 15 bins", f"{calibrated['ece']:.4f}"),
        ("Brier score, 0 to 2", f"{calibrated['brier']:.4f}"),
        ("negative log likelihood", f"{calibrated['nll']:.4f}"),
        ("area under the risk-coverage curve", f"{metrics['risk_coverage']['aurc']:.3g}"),
    ]


def of_classes(metrics: Mapping[str, Any]) -> list[list[str]]:
    """A table, its head first."""
    rows = [
        [own["label"], f"{own['images']:,}", f"{own['predicted']:,}", *(estimate(own[key]) for key in _OF_CLASS)]
        for own in metrics["classes"]
    ]
    return [["class", "images", "predicted", *_OF_CLASS.values()], *rows]


def confusion_table(metrics: Mapping[str, Any], *, shares: bool) -> list[list[str]]:
    """A table, its head first: counts, or what share of each row they are."""
    labels, counts = metrics["confusion"]["labels"], metrics["confusion"]["counts"]
    rows = [[f"{count / max(sum(row), 1):.2%}" if shares else f"{count:,}" for count in row] for row in counts]
    return [["truth, by row", *labels], *([label, *row] for label, row in zip(labels, rows, strict=True))]


def matched(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What became of every image."""
    found, truth = metrics["matched"], metrics["truth"]
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(found["unreadable"].items()))
    rows = [
        ("labelled and predicted", f"{found['images']:,}, matched by {found['by']}"),
        ("of those readable", f"{found['readable']:,}"),
        ("unreadable", kinds or "none"),
    ]
    for key in ("truth_without_prediction", "prediction_without_truth"):
        examples = f": {', '.join(found[key]['examples'])}" if found[key]["count"] else ""
        more = " ..." if found[key]["count"] > len(found[key]["examples"]) else ""
        rows.append((key.replace("_", " "), f"{found[key]['count']:,}{examples}{more}"))
    return [*rows, ("labelled rows of other splits, or of none", f"{truth['left_out']:,}")]


def pictures(there: Collection[str]) -> list[tuple[str, str]]:
    """Names and captions of those that were made."""
    return [(name, caption) for name, caption in _PLOTS.items() if name in there]


def skipped(there: Collection[str], metrics: Mapping[str, Any]) -> list[str]:
    """Why a contact sheet was not made."""
    if "uncertain.jpg" not in there:
        return ["No contact sheet was made: none of the image files is where it was classified, nor below the truth."]
    if "wrong.jpg" not in there:
        perfect = metrics["overall"]["accuracy"]["value"] == 1
        return [
            "No image is misclassified." if perfect else "None of the first misclassified images is here to be shown."
        ]
    return []


def for_page(metrics: Mapping[str, Any], uris: Mapping[str, str]) -> dict[str, Any]:
    """What the page ``evaluation`` shows; ``uris`` are the pictures by name."""
    return {
        "title": title(metrics),
        "cards": _cards(metrics),
        "intervals": intervals(metrics),
        "notes": [*metrics["notes"], *skipped(uris, metrics)],
        "advice": metrics["advice"],
        "overall": overall(metrics),
        "classes": of_classes(metrics),
        "counts": confusion_table(metrics, shares=False),
        "shares": confusion_table(metrics, shares=True),
        "matched": matched(metrics),
        "uris": uris,
        "captions": _PLOTS,
        "provenance": json.dumps({key: metrics[key] for key in ("predictions", "truth", "seed", "batchcls")}, indent=1),
    }


def _cards(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    chosen = [
        (_OVERALL[key], metrics["overall"][key]) for key in ("accuracy", "balanced_accuracy", "macro_f1", "kappa")
    ]
    cards = [
        (
            name,
            "undefined" if found["value"] is None else f"{found['value']:.4f}",
            f"{found['low']:.4f} to {found['high']:.4f}" if found["low"] is not None else found["why"],
        )
        for name, found in chosen
    ]
    threshold, risk = metrics["risk_coverage"]["threshold"], metrics["risk_coverage"]
    none = metrics["classes_without_images"]
    of_all = ("F1, macro, of all classes", f"{none['macro_f1_of_all']:.4f}", f"0 for {_few(none['labels'])}")
    return [
        *cards,
        *([of_all] if none["labels"] else []),
        ("calibration error", f"{metrics['calibration']['ece']:.4f}", "expected, 15 bins"),
        (
            "accepted",
            f"{threshold['coverage']:.1%}" if threshold else "none",
            f"with {risk['wanted_error_rate']:.2%} errors at most",
        ),
        (
            "images",
            f"{metrics['matched']['readable']:,}",
            f"{sum(metrics['matched']['unreadable'].values()):,} unreadable",
        ),
    ]


def summary(metrics: Mapping[str, Any], out: Path) -> list[str]:
    """The main figures in a few lines."""
    match, tempered = metrics["matched"], metrics["calibration"]["temperature"]
    unreadable, threshold = sum(match["unreadable"].values()), metrics["risk_coverage"]["threshold"]
    without, unused = match["truth_without_prediction"]["count"], match["prediction_without_truth"]["count"]
    accepted = (
        f"{threshold['coverage']:.2%} accepted from probability {np.float32(threshold['probability'])!s} on"
        if threshold
        else "no threshold"
    )
    mended = "no temperature was fitted" if tempered["fitted"] is None else "no temperature mends it"
    if tempered["give"] is not None:
        mended = f"{tempered['ece']:.4f} with batchcls build --temperature {tempered['give']:.4f}"
    elif tempered["gains"]:
        mended = f"{tempered['ece']:.4f} with {tempered['fitted']:.4f} times the engine's temperature, not said here"
    lines = [
        f"{match['readable']:,} images judged, {unreadable:,} unreadable -> {out / 'report.html'}",
        f"matched     by {match['by']}; {without:,} labelled without prediction, {unused:,} predicted without label",
        f"accuracy    {estimate(metrics['overall']['accuracy'])}",
        f"macro F1    {estimate(metrics['overall']['macro_f1'])}",
        *_without_images(metrics),
        f"calibration error {metrics['calibration']['ece']:.4f}; {mended}",
        f"threshold   {accepted}, for {metrics['risk_coverage']['wanted_error_rate']:.2%} errors at most",
    ]
    lines += [f"note        {note}" for note in [*metrics["predictions"]["notes"], *metrics["truth"]["notes"]]]
    return lines


def _without_images(metrics: Mapping[str, Any]) -> list[str]:
    none, classes = metrics["classes_without_images"], len(metrics["classes"])
    if not none["labels"]:
        return []
    return [
        f"            of the {classes - len(none['labels'])} classes with images; none is of {_few(none['labels'])}: "
        f"scikit-learn's f1_score over all {classes} is {none['macro_f1_of_all']:.4f}"
    ]


def _few(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more


def markdown(metrics: Mapping[str, Any], there: Collection[str]) -> str:
    """The report as Markdown, beside the pictures that are there."""
    engine = metrics["predictions"]["metadata"].get("engine")
    parts = [
        f"# {_plain(title(metrics))}",
        "\n".join(f"- {_plain(note)}" for note in [*metrics["notes"], *skipped(there, metrics)]),
        _rows([("all classes", "figure"), *overall(metrics)]),
        intervals(metrics),
        "## Classes",
        _rows(of_classes(metrics)),
        _rows(confusion_table(metrics, shares=False)),
        _rows(confusion_table(metrics, shares=True)),
        "## What to do",
        *map(_plain, metrics["advice"].values()),
        "## Images",
        _rows([("images", "number"), *matched(metrics)]),
        *(f"{caption}:\n\n![{caption}]({name})" for name, caption in pictures(there)),
        "## Provenance",
        f"Predictions: SHA-256 `{metrics['predictions']['sha256']}`, engine {_plain(str(engine))}; everything is in "
        "metrics.json, every misclassified image in wrong.csv.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(table: Sequence[Sequence[str]]) -> str:
    head, *rows = [f"| {' | '.join(map(_plain, row))} |" for row in table]
    return "\n".join([head, "|---" * len(table[0]) + "|", *rows])


def _plain(text: str) -> str:
    """``text`` with nothing in it that Markdown or HTML takes for its own."""
    return re.sub(r"([\\`*_\[\]|#~])", r"\\\1", html.escape(" ".join(text.split()), quote=False))
