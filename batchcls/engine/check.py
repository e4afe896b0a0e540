"""Check an engine: compare its answers to its probes with the answers that its folder carries."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from batchcls.engine.base import Engine, EngineInfo
from batchcls.engine.check_result import ProbeCheck
from batchcls.engine.manifest import Manifest, keeps_precision
from batchcls.engine.postprocess import to_predictions
from batchcls.engine.probes import PROBE_COUNT, draw_probes
from batchcls.errors import EngineError, VerificationError
from batchcls.records import Predictions


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Largest values of a `ProbeCheck` that the rounding of a precision explains."""

    largest_difference: float
    mean_difference: float
    log_difference: float

    def hold(self, check: ProbeCheck) -> bool:
        """Whether ``check`` lies within these bounds."""
        return (
            check.largest_difference <= self.largest_difference
            and (check.mean_difference or 0.0) <= self.mean_difference
            and (check.log_difference or 0.0) <= self.log_difference
        )


_BOUNDS = {
    "fp32": _Bounds(0.02, 0.01, 0.05),
    "fp16": _Bounds(0.1, 0.04, 0.2),
    "bf16": _Bounds(0.15, 0.05, 0.3),
    "int8": _Bounds(0.4, 0.15, 0.6),
}
"""Bounds by precision, the finest first: at least ten times the differences of a trained GoogLeNet on sound hardware,
and beyond those of ResNet-18, AlexNet and `networks.architectures.SmallCnn` with random features. An int8 GoogLeNet
that overflows on AVX2 differs by 0.94, 0.59 and 2.4. The measurements: docs/explanation/design.md, "Probes"."""
_ZERO_BOUNDS = _Bounds(0.0, 0.0, 0.0)
"""Bounds of an unknown precision, for which no difference is allowed."""
_PRECISIONS = {"f32": "fp32", "f16": "fp16"}
"""Precisions of the bounds, by the backends' names for them."""
_LEAST_PROBABILITY = 1e-4
"""Probability below which logarithms are not compared, because large ones there mean nothing."""


def allowed_difference(precision: str) -> float:
    """Largest difference of a probability, 0 to 1, that probes allow in ``fp32``, ``fp16``, ``bf16`` or ``int8``."""
    return _BOUNDS[precision].largest_difference


def check_answers(engine: Engine, manifest: Manifest) -> ProbeCheck:
    """How far an engine's answers to its probes are from the recorded ones.

    The recorded answers are those of the ONNX file by exact arithmetic. A folder of an older version has only the
    training framework's float32 logits, and is compared with those.

    Raises:
        EngineError: If some probe has no recorded answer.
        VerificationError: If the answers differ by more than the engine's precision explains.
    """
    if len(manifest.reference) != PROBE_COUNT:
        raise missing_answers_error(manifest)
    if manifest.answers:
        expected, precision = manifest.answers, _bounds_name(engine.info.precision)
    else:
        expected, precision = manifest.reference, _coarser(engine.info.precision, manifest.precision)
    check = _compare(engine, manifest, expected)
    if not _BOUNDS.get(precision, _ZERO_BOUNDS).hold(check):
        raise _difference_error(engine.info, check, precision, _remedy(engine.info, manifest))
    return check


def check_exported_answers(engine: Engine, manifest: Manifest) -> ProbeCheck:
    """How far a new engine's answers to its probes are from the training framework's float32 logits.

    Not for int8 engines: their value ranges are calibrated on images that differ from probes.

    Raises:
        VerificationError: If the answers differ by more than the rounding of an export explains.
    """
    # A network that rounding to half precision moves is not yet one that was exported wrongly.
    precision = "fp32" if manifest.precision == "fp32" else "bf16"
    check = _compare(engine, manifest, manifest.reference)
    if not _BOUNDS[precision].hold(check):
        raise _difference_error(engine.info, check, precision, _export_remedy(manifest))
    return check


def _compare(engine: Engine, manifest: Manifest, expected: Sequence[Sequence[float]]) -> ProbeCheck:
    pixels = draw_probes(engine.info.preprocess.size_px, manifest.probes)
    return compare_predictions(
        to_predictions(engine.infer(pixels).logits), to_predictions(np.array(expected, np.float32))
    )


def compare_predictions(actual: Predictions, expected: Predictions) -> ProbeCheck:
    """How far two predictions of the same images are apart; an answer that is not a number differs by 1."""
    probabilities = np.where(actual.finite[:, None], actual.probabilities, np.nan).astype(np.float64)
    difference = np.nan_to_num(np.abs(probabilities - expected.probabilities), nan=1.0)
    logs = (
        np.log(np.maximum(np.nan_to_num(side), _LEAST_PROBABILITY)) for side in (probabilities, expected.probabilities)
    )
    return ProbeCheck(
        probes=len(difference),
        top1_agreement=float((actual.finite & (actual.labels == expected.labels)).mean()),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.sum(axis=1).mean() / 2),
        log_difference=float(np.sqrt(np.mean(np.subtract(*logs) ** 2))),
    )


def _bounds_name(precision: str) -> str:
    """Name of a precision as the bounds have it; an unknown one stays as it is."""
    return _PRECISIONS.get(precision, precision)


def _coarser(*precisions: str) -> str:
    """The coarsest of several precisions; an unknown one, to which nothing is allowed, wins."""
    names = list(map(_bounds_name, precisions))
    unknown = [name for name in names if name not in _BOUNDS]
    return unknown[0] if unknown else max(names, key=list(_BOUNDS).index)


def _difference_error(info: EngineInfo, check: ProbeCheck, precision: str, remedy: str) -> VerificationError:
    bounds = _BOUNDS.get(precision, _ZERO_BOUNDS)
    return VerificationError(
        f"engine {info.name!r} answers the probes by {info.backend} on {info.device} otherwise than verified: "
        f"probabilities differ by up to {check.largest_difference:.4f}, {check.mean_difference:.4f} on average, "
        f"their logarithms by {check.log_difference:.4f}; {precision} explains {bounds.largest_difference}, "
        f"{bounds.mean_difference} and {bounds.log_difference}; top-1 agreement is {check.top1_agreement:.4f}; {remedy}"
    )


def _remedy(info: EngineInfo, manifest: Manifest) -> str:
    """The command that mends an engine that answers otherwise than recorded."""
    build = "batchcls build CHECKPOINT --out ENGINE --overwrite"
    if info.backend.startswith("tensorrt"):  # the plan may be of another driver
        build = f"batchcls build ENGINE --device {info.device}, or {build}"
    keeps_its_own = keeps_precision(manifest.architecture)
    if info.precision == "int8":
        cause = "engines of older versions overflow on CPUs without VNNI; " if info.device == "cpu" else ""
        other = "without --precision" if keeps_its_own else "with --precision fp16"
        return f"{cause}run: {build} --precision int8 --calibrate DIR, or build {other}"
    if info.backend == "torch.compile":
        return f"run: TORCHDYNAMO_DISABLE=1 batchcls run, or {build}"
    if info.precision == "bf16" and info.device == "cpu":
        return f"run: batchcls run --precision fp32, or {build}"
    return f"run: {build}{'' if keeps_its_own or manifest.precision == 'fp32' else ' --precision fp32'}"


def _export_remedy(manifest: Manifest) -> str:
    """Advice for a build whose ONNX file answers otherwise than the trained network, for its error message."""
    if manifest.architecture == "onnx":
        return "OpenVINO computes this ONNX file otherwise than ONNX Runtime: export it with another operator set"
    if manifest.precision == "fp32":
        return "the export went wrong: export the network to ONNX yourself, and build the engine from that file"
    return "build with --precision fp32"


def missing_answers_error(manifest: Manifest) -> EngineError:
    """The error of an engine that cannot be checked, because its probes have no recorded answers."""
    return EngineError(
        f"engine {manifest.name!r} has recorded answers to {len(manifest.reference)} probes of {PROBE_COUNT}, so what "
        "it answers cannot be checked; run: batchcls build CHECKPOINT --out ENGINE --overwrite"
    )
