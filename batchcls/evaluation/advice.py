"""What an evaluation means: what to do, and what to know before its figures are believed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

_FEW_GROUPS = 10
_FEW_ERRORS = 20
_ROUNDING = 1e-9


def temperature_gains(metrics: Mapping[str, Any]) -> bool:
    """Whether the fitted temperature makes probabilities better."""
    calibrated, tempered = metrics["calibration"], metrics["calibration"]["temperature"]
    return tempered["fitted"] is not None and all(tempered[figure] <= calibrated[figure] for figure in ("ece", "nll"))


def temperature_to_give(metrics: Mapping[str, Any]) -> float | None:
    """The fitted one on top of what the engine divides by already.

    None if nothing is gained by it, or if another program lost what the engine divides by.
    """
    metadata = metrics["predictions"]["metadata"]
    if not metadata or not temperature_gains(metrics):
        return None
    engine = metadata.get("engine")
    before = engine.get("temperature", 1.0) if isinstance(engine, dict) else 1.0
    return float(before) * float(metrics["calibration"]["temperature"]["fitted"])


def advice(metrics: Mapping[str, Any]) -> dict[str, str]:
    """What to do with the temperature and the threshold, in words."""
    risk, calibrated = metrics["risk_coverage"], metrics["calibration"]
    tempered = calibrated["temperature"]
    temperature = f"No temperature was fitted: {tempered['why']}."
    if tempered["fitted"] is not None:
        temperature = (
            f"A temperature of {tempered['fitted']:.4f} takes the calibration error from {calibrated['ece']:.4f} to "
            f"{tempered['ece']:.4f}, and the negative log likelihood from {calibrated['nll']:.4f} to "
            f"{tempered['nll']:.4f}, each half of the images tried with what was fitted on the other. "
            + _use_of(tempered)
        )
    found, wanted = risk["threshold"], risk["wanted_error_rate"]
    threshold = f"No threshold on the probability leaves at most {wanted:.2%} errors among accepted images."
    if found:
        threshold = (
            f"Accepting images from probability {np.float32(found['probability'])!s} on takes {found['accepted']:,} of "
            f"them ({found['coverage']:.2%}), with {found['errors']:,} errors ({found['error_rate']:.2%}; with 95 % "
            f"confidence at most {found['error_rate_at_most']:.2%}, if images are independent), and leaves "
            f"{found['to_a_human']:,} to a human, beside those that cannot be read. It was chosen on these images: "
            "confirm it on others."
        )
    return {"temperature": temperature, "threshold": threshold}


def _use_of(tempered: Mapping[str, Any]) -> str:
    if tempered["give"] is None and tempered["gains"]:
        return "To use it: multiply the engine's own temperature by it, which these predictions no longer say."
    if tempered["give"] is None:
        return "That is no gain: leave the probabilities as they are."
    before = tempered["give"] / tempered["fitted"]
    own = f" (the engine's own {before:g} times the fitted one)" if abs(before - 1) > _ROUNDING else ""
    return f"To use it: batchcls build MODEL --temperature {tempered['give']:.4f}{own}."


def notes(metrics: Mapping[str, Any]) -> list[str]:
    """What a reader must know before they believe the figures."""
    match, truth, groups = metrics["matched"], metrics["truth"], metrics["groups"]
    one = [found["label"] for found in metrics["classes"] if found["images"] == 1]
    none, classes = metrics["classes_without_images"], len(metrics["classes"])
    narrow = [found["label"] for found in metrics["classes"] if _without_width(found["recall"])]
    errors = int(np.sum(metrics["confusion"]["counts"]) - np.trace(metrics["confusion"]["counts"]))
    unreadable, without = sum(match["unreadable"].values()), match["truth_without_prediction"]["count"]
    said = {
        **dict.fromkeys([*metrics["predictions"]["notes"], *truth["notes"]], True),
        "Images were matched by the ends of their paths, for no whole path is the same: make sure that they are the "
        "same images.": match["by"] == "end of path",
        "Images were matched by file name alone, for no path is the same: make sure that they are the same images.": (
            match["by"] == "file name"
        ),
        f"Labelled and classified images are two: {' and '.join(match['two_files'] or ())} differ. Make sure that the "
        "labels are of the images that were classified.": match["two_files"],
        f"{without:,} labelled images have no prediction, and count nowhere.": without,
        f"{unreadable:,} labelled images could not be read; figures are of those that could, unless they say "
        "otherwise.": unreadable,
        f"{truth['unlabelled']:,} images stand in no class folder or named part, and have no label.": truth[
            "unlabelled"
        ],
        f"No image is of {', '.join(none['labels'])}: averages are over the other classes. Macro F1 over all "
        f"{classes}, where scikit-learn's f1_score counts a class without images as 0, is "
        f"{none['macro_f1_of_all']:.4f}.": none["labels"],
        f"One image alone is of {', '.join(one)}: their figures say little.": one,
        f"Recall has an interval without width for {', '.join(narrow)}: no error was seen there, or nothing else, "
        "which is not certainty; after no error in n independent images, the rate may still be 3/n.": narrow,
        f"Misclassified images: {errors}; the temperature and the threshold hang on so few.": errors < _FEW_ERRORS,
        f"Intervals of few groups are too narrow; the number of groups here is {groups}.": groups
        and groups < _FEW_GROUPS,
        "Images are taken as independent; if some are of one patient or smear, name them with --group-by.": not groups,
    }
    return [note for note, holds in said.items() if holds]


def _without_width(found: Mapping[str, Any]) -> bool:
    return found["low"] is not None and found["low"] == found["high"]
