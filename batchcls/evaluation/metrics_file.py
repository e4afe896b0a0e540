"""The content of metrics.json, with the keys that other programs read."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from batchcls import __version__
from batchcls.evaluation.advice import advise, caveats
from batchcls.evaluation.calibration import Calibration, ReliabilityBin
from batchcls.evaluation.conformal import ConformalSets
from batchcls.evaluation.novelty_accuracy import NoveltyAccuracy
from batchcls.evaluation.results import ClassResult, Evaluation


def metrics_json(evaluation: Evaluation) -> bytes:
    """The content of metrics.json: an evaluation as indented JSON without NaN or infinity."""
    return json.dumps(_values(evaluation), indent=1, allow_nan=False).encode()


def provenance_json(evaluation: Evaluation) -> str:
    """The part of metrics.json that names inputs, seed and version, as indented JSON."""
    values = _provenance(evaluation)
    return json.dumps({key: values[key] for key in ("predictions", "truth", "seed", "batchcls")}, indent=1)


def _values(evaluation: Evaluation) -> dict[str, object]:
    absent = evaluation.absent_classes
    return {
        **_provenance(evaluation),
        "matched": asdict(evaluation.matched),
        "groups": evaluation.groups,
        "accuracy_with_unreadable_as_wrong": evaluation.accuracy_with_unreadable_as_wrong,
        "overall": asdict(evaluation.overall),
        "classes": [_class(result) for result in evaluation.classes],
        "classes_without_images": {"labels": absent.labels, "macro_f1_of_all": absent.macro_f1_of_all},
        "confusion": {"labels": evaluation.labels, "counts": evaluation.confusion.tolist()},
        "calibration": _calibration(evaluation.calibration, evaluation.recommended_temperature),
        "risk_coverage": asdict(evaluation.risk_coverage),
        "label_issues": _label_issues(evaluation),
        "novelty": evaluation.novelty and _novelty(evaluation.novelty),
        "conformal": evaluation.conformal and _conformal(evaluation.conformal),
        "advice": asdict(advise(evaluation)),
        "notes": caveats(evaluation),
    }


def _provenance(evaluation: Evaluation) -> dict[str, object]:
    truth = evaluation.truth
    return {
        "batchcls": __version__,
        "predictions": asdict(evaluation.predictions),
        "truth": {
            "path": truth.path,
            "rows": truth.rows,
            "group_by": truth.group_by,
            "split": truth.split,
            "has_splits": truth.has_splits,
            "left_out": truth.left_out,
            "unlabelled": truth.unlabeled,
            "split_folders": truth.split_folders,
            "notes": truth.notes,
        },
        "seed": evaluation.seed,
        "resamples": evaluation.resamples,
    }


def _class(result: ClassResult) -> dict[str, object]:
    counts = {"label": result.label, "images": result.images, "predicted": result.predicted}
    return {**counts, **asdict(result.metrics)}


def _label_issues(evaluation: Evaluation) -> dict[str, object]:
    issues = evaluation.label_issues
    counts = zip(evaluation.labels, issues.by_class, strict=True)
    return {
        "candidates": None if issues.why else len(issues.rows),
        "classes": None if issues.why else [{"label": label, "candidates": count} for label, count in counts],
        "why": issues.why,
    }


def _novelty(novelty: NoveltyAccuracy) -> dict[str, object]:
    return {
        "familiar": asdict(novelty.familiar),
        "novel": asdict(novelty.novel),
        "unjudged": novelty.unjudged,
        "share": novelty.share,
    }


def _calibration(calibration: Calibration, recommended: float | None) -> dict[str, object]:
    scaling = calibration.scaling
    return {
        "bins": _bins(calibration.bins),
        "ece": calibration.ece,
        "brier": calibration.brier,
        "nll": calibration.nll,
        "temperature": {
            "fitted": scaling.temperature if scaling else None,
            "ece": scaling.ece if scaling else None,
            "nll": scaling.nll if scaling else None,
            "bins": _bins(scaling.bins) if scaling else None,
            "why": calibration.why_not_fitted,
            "gains": calibration.is_improved,
            "give": recommended,
        },
    }


def _conformal(sets: ConformalSets) -> dict[str, object]:
    """The thresholds, with the keys that `build ENGINE --conformal` reads, and the measures by level."""
    thresholds = sets.thresholds
    return {
        **asdict(thresholds),
        "test_images": sets.overall[0].images,
        "measured": {
            level: {
                "overall": asdict(overall),
                "classes": [
                    {"label": label, "calibration_images": images, **asdict(measures)}
                    for label, images, measures in zip(own, sets.calibration_images, classes, strict=True)
                ],
            }
            for (level, own), overall, classes in zip(
                thresholds.levels.items(), sets.overall, sets.classes, strict=True
            )
        },
    }


def _bins(bins: Sequence[ReliabilityBin]) -> list[dict[str, object]]:
    return [
        {
            "from": place.lower,
            "to": place.upper,
            "images": place.images,
            "probability": place.probability,
            "accuracy": place.accuracy,
        }
        for place in bins
    ]
