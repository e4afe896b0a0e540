"""How an engine answers its probes, against the answers that its folder carries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchcls.engine.base import Engine
from batchcls.engine.check_result import ProbeCheck
from batchcls.engine.manifest import Manifest
from batchcls.engine.postprocess import predictions
from batchcls.engine.probes import COUNT, probe_pixels
from batchcls.errors import EngineError, VerificationError
from batchcls.records import EngineInfo, Predictions


@dataclass(frozen=True, slots=True)
class _Bounds:
    """The most that a precision explains, between an engine's answers to the probes and float32's; see `ProbeCheck`."""

    largest: float
    mean: float
    log: float


_BOUNDS = {
    "fp32": _Bounds(0.02, 0.01, 0.05),
    "fp16": _Bounds(0.1, 0.04, 0.2),
    "bf16": _Bounds(0.15, 0.05, 0.3),
    "int8": _Bounds(0.4, 0.15, 0.6),
}
"""By precision, the finest first: at least ten times what a trained GoogLeNet was off by on sound hardware, and beyond
ResNet-18, AlexNet and `networks.SmallCnn` with random features. An int8 GoogLeNet that overflows on AVX2 is off by
0.94, 0.59 and 2.4. The measurements: CONTRIBUTING.md, "Probes"."""
_NAMES = {"f32": "fp32", "f16": "fp16"}
"""What backends call precisions."""
_LEAST_PROBABILITY = 1e-4
"""From which on logarithms are compared: below it they are large, and mean nothing."""


def check(engine: Engine, manifest: Manifest) -> ProbeCheck:
    """How an engine answers the probes, against what its network answers by exact arithmetic.

    Against the float32 logits that were recorded in training's framework where a folder of an older version has no
    others.

    Raises:
        EngineError: If not every probe has its answer.
        VerificationError: If it answers otherwise than its precision explains.
    """
    if len(manifest.reference) != COUNT:
        raise no_reference(manifest)
    if manifest.answers:
        return _within(engine, manifest, manifest.answers, engine.info.precision)
    return _within(engine, manifest, manifest.reference, engine.info.precision, manifest.precision)


def check_export(engine: Engine, manifest: Manifest) -> ProbeCheck:
    """How an engine answers the probes, against the float32 logits of training's framework.

    Of int8, the probes say nothing here: it was calibrated on images that look otherwise.

    Raises:
        VerificationError: If it answers otherwise than its precision explains.
    """
    # A network that rounding to half precision moves is not yet one that was exported wrongly.
    return _within(engine, manifest, manifest.reference, "fp32" if manifest.precision == "fp32" else "bf16")


def _within(engine: Engine, manifest: Manifest, expected: Sequence[Sequence[float]], *precisions: str) -> ProbeCheck:
    info = engine.info
    found = compared(
        predictions(engine.infer(probe_pixels(info.preprocess.size_px, manifest.probes))),
        predictions(np.array(expected, np.float32)),
    )
    coarsest = _coarsest(*precisions)
    bounds = _BOUNDS.get(coarsest, _Bounds(0.0, 0.0, 0.0))
    if (
        found.largest_difference > bounds.largest
        or (found.mean_difference or 0.0) > bounds.mean
        or (found.log_difference or 0.0) > bounds.log
    ):
        raise VerificationError(
            f"engine {info.name!r} answers the probes by {info.backend} on {info.device} otherwise than verified: "
            f"probabilities differ by up to {found.largest_difference:.4f}, {found.mean_difference:.4f} on average, "
            f"their logarithms by {found.log_difference:.4f}; {coarsest} explains {bounds.largest}, "
            f"{bounds.mean} and {bounds.log}; top-1 agreement is {found.top1_agreement:.4f}; {_mend(info, manifest)}"
        )
    return found


def compared(ours: Predictions, theirs: Predictions) -> ProbeCheck:
    """How far answers to the same images are apart; one that is not a number is as far off as can be."""
    probabilities = np.where(ours.finite[:, None], ours.probabilities, np.nan).astype(np.float64)
    difference = np.nan_to_num(np.abs(probabilities - theirs.probabilities), nan=1.0)
    logs = (
        np.log(np.maximum(np.nan_to_num(side), _LEAST_PROBABILITY)) for side in (probabilities, theirs.probabilities)
    )
    return ProbeCheck(
        probes=len(difference),
        top1_agreement=float((ours.finite & (ours.labels == theirs.labels)).mean()),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.sum(axis=1).mean() / 2),
        log_difference=float(np.sqrt(np.mean(np.subtract(*logs) ** 2))),
    )


def _coarsest(*precisions: str) -> str:
    """Of the precisions that an engine is stored or computed in; one that is unknown, of which nothing is allowed."""
    names = [_NAMES.get(precision, precision) for precision in precisions]
    unknown = [name for name in names if name not in _BOUNDS]
    return unknown[0] if unknown else max(names, key=list(_BOUNDS).index)


def _mend(info: EngineInfo, manifest: Manifest) -> str:
    if info.precision == "int8":
        return (
            "engines of older versions overflow on CPUs without VNNI; "
            "run: batchcls build CHECKPOINT --out ENGINE --precision int8 --calibrate DIR, or --precision fp16"
        )
    if info.precision == "bf16":
        return "run: batchcls run --precision fp32, or batchcls build CHECKPOINT --out ENGINE"
    finer = "" if manifest.precision == "fp32" else " --precision fp32"
    return f"run: batchcls build CHECKPOINT --out ENGINE{finer}"


def no_reference(manifest: Manifest) -> EngineError:
    """What to say of an engine that cannot be checked."""
    return EngineError(
        f"engine {manifest.name!r} has recorded answers to {len(manifest.reference)} probes of {COUNT}, so what it "
        "answers cannot be checked; run: batchcls build CHECKPOINT --out ENGINE"
    )
