"""Conformal sets of an evaluation as sentences and tables, shared by the HTML page and the Markdown report."""

from batchcls.evaluation.conformal import SetMeasures
from batchcls.evaluation.results import Evaluation
from batchcls.evaluation.tables import Table, first_labels

_HEAD = ["class", "fitted on", "tested on", "coverage", "mean size", "empty", "one label", "threshold"]


def set_sentences(evaluation: Evaluation) -> list[str]:
    """What the sets are and how they are used, and the classes of which they promise nothing."""
    if (sets := evaluation.conformal) is None:
        return ["An engine of one class has no sets of labels."]
    unit = "groups" if evaluation.groups else "images"
    return [
        "A set holds every label that an image may have: of each class, the sets of the promised share of images hold "
        f"the true label. The thresholds were fitted on half of the {unit} of each class, and the figures are of the "
        "other half. An empty set says that no label is as probable as it is for most images of its class. To have "
        "sets in the predictions: batchcls build ENGINE --conformal metrics.json.",
        *(
            f"At {float(level):.0%}, too few images are of {first_labels(labels)}: no threshold was fitted, and every "
            "set holds the label."
            for level in sets.thresholds.levels
            if (labels := sets.thresholds.in_every_set(float(level)))
        ),
        *(
            ["The intervals of the coverage take images as independent; those of groups are too narrow."]
            if evaluation.groups
            else []
        ),
    ]


def set_tables(evaluation: Evaluation) -> dict[str, Table]:
    """A table for each level, by its title: coverage and size of the sets, a row per class and one for all."""
    if (sets := evaluation.conformal) is None:
        return {}
    tables = {}
    for (level, thresholds), overall, classes in zip(
        sets.thresholds.levels.items(), sets.overall, sets.classes, strict=True
    ):
        rows = [
            [label, f"{images:,}", *_cells(measures), "every label" if threshold is None else f"{threshold:.4g}"]
            for (label, threshold), images, measures in zip(
                thresholds.items(), sets.calibration_images, classes, strict=True
            )
        ]
        every = ["all", f"{sets.thresholds.images:,}", *_cells(overall), "by class"]
        tables[f"Promised: {float(level):.0%}"] = [_HEAD, *rows, every]
    return tables


def _cells(measures: SetMeasures) -> list[str]:
    if measures.coverage is None:
        return ["0", *["no image"] * 4]
    return [
        f"{measures.images:,}",
        f"{measures.coverage:.4f} ({measures.low:.4f} to {measures.high:.4f})",
        f"{measures.mean_size:.3f}",
        f"{measures.empty:.2%}",
        f"{measures.single:.2%}",
    ]
