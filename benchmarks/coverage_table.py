"""``python -m benchmarks.coverage_table``: whether conformal sets hold their promise in 20 splits, class by class."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import betabinom, binom

from batchcls.evaluation.conformal import LEVELS, measure_conformal_sets
from batchcls.evaluation.matched_images import match_images
from batchcls.images.labels.labeled_images import LabeledImages
from batchcls.predictions.reader import PredictionsFile
from benchmarks.checkout import THIS_CHECKOUT
from benchmarks.record import checkout_commit

_SPLITS = 20
_TAIL = 0.025
"""Share of chance beyond each end of a 95 % region."""


@click.command()
@click.argument("predictions", type=click.Path(exists=True, path_type=Path))
@click.option("--truth", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="JSON Lines file to append the record to.")
def main(predictions: Path, truth: Path, out: Path | None) -> None:
    """Measure the coverage of sets of labels for the images of PREDICTIONS in random halves."""
    file = PredictionsFile.read(predictions, ())
    labeled = LabeledImages.read(truth, "", "", file.labels)
    images = match_images(file, truth, labeled.table, labeled.root, 0).predictions
    cells: list[dict[str, Any]] = []
    for seed in range(_SPLITS):
        sets = measure_conformal_sets(images, file.labels, seed)
        if sets is None:
            raise click.ClickException("an engine of one class has no sets of labels")
        for level, of_level in zip(LEVELS, sets.classes, strict=True):
            for label, fitted, measures in zip(file.labels, sets.calibration_images, of_level, strict=True):
                cells.append(_cell(seed, level, label, fitted, measures.covered, measures.images))
    record = {
        "predictions": file.metadata.get("engine", {}).get("name"),
        "truth": truth.name,
        "commit": checkout_commit(THIS_CHECKOUT),
        "images": len(images.truth),
        "splits": _SPLITS,
        "cells": len(cells),
        **{region: sum(cell[region] for cell in cells) for region in ("in_binomial", "in_beta_binomial")},
        "mean_coverage": _means(cells),
    }
    click.echo(json.dumps(record, indent=1))
    if out:
        with out.open("a") as stream:
            stream.write(f"{json.dumps(record)}\n")


def _cell(seed: int, level: float, label: str, fitted: int, covered: int, tested: int) -> dict[str, Any]:
    """The coverage of a class in a split, and whether it is within what chance does to sets that hold their promise.

    The binomial region takes the coverage of the fitted thresholds for exactly the promised one; the beta-binomial
    region knows that thresholds that are fitted on few images vary by themselves.
    """
    rank = int(np.ceil(round((fitted + 1) * level, 9)))
    exact = betabinom(tested, rank, fitted + 1 - rank)
    regions = {"in_binomial": binom(tested, level), "in_beta_binomial": exact}
    inside = {name: bool(law.ppf(_TAIL) <= covered <= law.ppf(1 - _TAIL)) for name, law in regions.items()}
    return {"seed": seed, "level": level, "label": label, "coverage": covered / tested, **inside}


def _means(cells: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean coverage by level and label, over all splits."""
    keys = dict.fromkeys((cell["level"], cell["label"]) for cell in cells)
    means: dict[str, dict[str, float]] = {}
    for level, label in keys:
        values = [cell["coverage"] for cell in cells if (cell["level"], cell["label"]) == (level, label)]
        means.setdefault(str(level), {})[label] = round(float(np.mean(values)), 4)
    return means


if __name__ == "__main__":
    main()
