"""Lines on what a build made, and on how far it agrees with the training and with class folders."""

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchcls.engine.conformal import ConformalThresholds
    from batchcls.engine.manifest import Manifest
    from batchcls.engine.plan_sidecar import Sidecar
    from batchcls.engine.verification import FolderAccuracy

_MOST_LABELS = 8
_FRAMEWORKS = ("Keras", "ONNX Runtime", "transformers", "timm")
"""Frameworks, other than PyTorch alone, by whose names the reference of a verification says them."""


def plan_summary(sidecar: "Sidecar") -> str:
    """One line on a plan: its GPU, its precision, and the result of its check."""
    target, check = sidecar.target, sidecar.check
    checked = (
        f"on {check.probes} probes top-1 agreement {check.top1_agreement:.4f}, probabilities differ by "
        f"{check.largest_difference:.4f} at most"
        if check
        else "never run: its GPU is not here"
    )
    return (
        f"plan for {target.gpu or 'any card'} ({target.sm}), {target.module} {target.version}, {sidecar.precision}, "
        f"batches of {sidecar.batch_size}: {checked}"
    )


def promise_summary(thresholds: "ConformalThresholds") -> list[str]:
    """Lines on the promise of an engine's sets of labels, and on labels without a promise."""
    levels = " or ".join(f"{level:.4g}" for level in thresholds.coverages)
    lines = [
        f"sets      hold the true label of a share of {levels} of each class's images, of the kind of the "
        f"{thresholds.images:,} that the thresholds were fitted on"
    ]
    for level in thresholds.coverages:
        if labels := thresholds.in_every_set(level):
            more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
            lines.append(
                f"          at {level:.4g}, every set holds {', '.join(labels[:_MOST_LABELS])}{more}: too few images "
                "of it to fit on"
            )
    return lines


def unreadable_warning(manifest: "Manifest") -> str:
    """The warning that a verification could not read most of its images; empty if it read most."""
    verification = manifest.verification
    if verification is None or verification.unreadable <= verification.images:
        return ""
    images = verification.images + verification.unreadable
    return (
        f"{verification.unreadable:,} of {images:,} images below {verification.folder!r} could not be read, "
        "so the rest says little of them; see why with batchcls run"
    )


def agreement_summary(manifest: "Manifest") -> str:
    """One line on how an engine was verified on images."""
    verification = manifest.verification
    if verification is None:
        return "never verified on images; build it again with --verify FOLDER --overwrite"
    files = verification.disagreements
    differing = f", differing: {', '.join(files[:10])}" if files else ""
    unreadable = f", {verification.unreadable:,} unreadable" if verification.unreadable else ""
    framework = next((name for name in _FRAMEWORKS if name in verification.reference), "PyTorch")
    unproven = "" if verification.accuracy else "; this is no check of accuracy"
    return (
        f"matches {framework} on {verification.images:,} images{unreadable}: top-1 agreement "
        f"{verification.top1_agreement:.4%}, probabilities differ by {verification.largest_difference:.4f} at most, "
        f"{verification.mean_difference:.6f} on average{differing}{unproven}"
    )


def accuracy_summary(accuracy: "FolderAccuracy") -> str:
    """One line on how often an engine's labels are the names of the class folders."""
    low, high = accuracy.interval
    return (
        f"accuracy  {accuracy.accuracy:.4f} ({low:.4f} to {high:.4f}) by the class folders of {accuracy.images:,} "
        "images; too high if the network was trained on them"
    )


def order_warning(accuracy: "FolderAccuracy | None") -> str:
    """The warning that the labels are in a wrong order, with the right one; empty if no order is far better."""
    if accuracy is None or not accuracy.better_labels:
        return ""
    listed = ",".join(accuracy.better_labels)
    given = shlex.quote(listed) if listed.count(",") < len(accuracy.better_labels) else "FILE, with one label a line"
    return (
        f"warning: THE LABELS SEEM TO BE IN A WRONG ORDER: by the class folders of {accuracy.images:,} images "
        f"{accuracy.accuracy:.2%} are right; in the order {', '.join(accuracy.better_labels)} it would be "
        f"{accuracy.better_accuracy:.2%}; if that is the order of the training, build again: --labels {given} "
        "--overwrite"
    )


def novelty_summary(manifest: "Manifest") -> list[str]:
    """At most one line on how an engine tells novelty."""
    if manifest.novelty is None:
        return []
    statistics = manifest.novelty["statistics"]
    return [
        f"novelty   fitted on {statistics['fitted_images']:,} images below {manifest.novelty['folder']!r}, "
        f"calibrated on {statistics['calibration_images']:,} others"
    ]
