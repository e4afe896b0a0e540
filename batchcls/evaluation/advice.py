"""Recommendations that follow from an evaluation, and caveats on its metrics."""

from dataclasses import dataclass

import numpy as np

from batchcls.evaluation.results import Evaluation

_FEW_GROUPS = 10
"""Below this number of groups, percentile intervals are too narrow."""
_FEW_ERRORS = 20
"""Below this number of misclassified images, a temperature and a threshold are uncertain."""
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Advice:
    """Recommendations of an evaluation, as paragraphs for a reader."""

    temperature: str
    """Recommendation for or against temperature scaling, with the command for it."""
    threshold: str
    """Probability from which on images can be accepted without a human, with the errors that remain."""


def advise(evaluation: Evaluation) -> Advice:
    """Recommendations on the temperature and on the threshold, in words."""
    return Advice(_temperature_advice(evaluation), _threshold_advice(evaluation))


def _temperature_advice(evaluation: Evaluation) -> str:
    calibration = evaluation.calibration
    scaling = calibration.scaling
    if scaling is None:
        return f"No temperature was fitted: {calibration.why_not_fitted}."
    return (
        f"A temperature of {scaling.temperature:.4f} takes the calibration error from {calibration.ece:.4f} to "
        f"{scaling.ece:.4f}, and the negative log likelihood from {calibration.nll:.4f} to "
        f"{scaling.nll:.4f}, each half of the images tried with what was fitted on the other. "
        + _use_of_temperature(evaluation, scaling.temperature)
    )


def _use_of_temperature(evaluation: Evaluation, fitted: float) -> str:
    if not evaluation.calibration.is_improved:
        return "That is no gain: leave the probabilities as they are."
    recommended = evaluation.recommended_temperature
    if recommended is None:
        return "To use it: multiply the engine's own temperature by it, which these predictions no longer say."
    before = recommended / fitted
    product = f" (the engine's own {before:g} times the fitted one)" if abs(before - 1) > _ROUNDING else ""
    return f"To use it: batchcls build MODEL --temperature {recommended:.4f}{product}."


def _threshold_advice(evaluation: Evaluation) -> str:
    threshold, wanted = evaluation.risk_coverage.threshold, evaluation.risk_coverage.wanted_error_rate
    if threshold is None:
        return f"No threshold on the probability leaves at most {wanted:.2%} errors among accepted images."
    return (
        f"Accepting images from probability {np.float32(threshold.probability)!s} on takes {threshold.accepted:,} of "
        f"them ({threshold.coverage:.2%}), with {threshold.errors:,} errors ({threshold.error_rate:.2%}; with 95 % "
        f"confidence at most {threshold.error_rate_at_most:.2%}, if images are independent), and leaves "
        f"{threshold.to_a_human:,} to a human, beside those that cannot be read. It was chosen on these images: "
        "confirm it on others."
    )


def caveats(evaluation: Evaluation) -> list[str]:
    """Caveats on the metrics of an evaluation, a sentence or two each."""
    recorded = [*evaluation.predictions.notes, *evaluation.truth.notes]
    return list(dict.fromkeys([*recorded, *_match_caveats(evaluation), *_figure_caveats(evaluation)]))


def _match_caveats(evaluation: Evaluation) -> list[str]:
    """Caveats on the selection and the matching of the images."""
    match, truth = evaluation.matched, evaluation.truth
    without = match.truth_without_prediction.count
    caveats = {
        "Images were matched by the ends of their paths, for no whole path is the same: make sure that they are the "
        "same images.": match.by == "end of path",
        "Images were matched by file name alone, for no path is the same: make sure that they are the same images.": (
            match.by == "file name"
        ),
        f"Labelled and classified images are two: {' and '.join(match.two_files or ())} differ. Make sure that the "
        "labels are of the images that were classified.": match.two_files is not None,
        f"{without:,} labelled images have no prediction, and count nowhere.": without > 0,
        f"{evaluation.unreadable:,} labelled images could not be read; figures are of those that could, unless they "
        "say otherwise.": evaluation.unreadable > 0,
        f"{truth.unlabeled:,} images stand in no class folder or named part, and have no label.": truth.unlabeled > 0,
    }
    return [caveat for caveat, holds in caveats.items() if holds]


def _figure_caveats(evaluation: Evaluation) -> list[str]:
    """Caveats on the uncertainty of the metrics."""
    classes, absent, groups = evaluation.classes, evaluation.absent_classes, evaluation.groups
    single = [result.label for result in classes if result.images == 1]
    caveats = {
        f"No image is of {', '.join(absent.labels)}: averages are over the other classes. Macro F1 over all "
        f"{len(classes)}, where scikit-learn's f1_score counts a class without images as 0, is "
        f"{absent.macro_f1_of_all:.4f}.": absent.labels,
        f"One image alone is of {', '.join(single)}: their figures say little.": single,
        f"Misclassified images: {evaluation.errors}; the temperature and the threshold hang on so few.": (
            evaluation.errors < _FEW_ERRORS
        ),
        f"Intervals of few groups are too narrow; the number of groups here is {groups}.": (
            groups and groups < _FEW_GROUPS
        ),
        "Images are taken as independent; if some are of one patient or smear, name them with --group-by.": not groups,
    }
    return [caveat for caveat, holds in caveats.items() if holds]
