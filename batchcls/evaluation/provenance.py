"""Descriptions, as text, of the run that wrote a predictions file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

NOT_RECORDED = "not recorded"
"""Text in place of a value that the file does not record."""
_LARGEST_FIGURE = 2**63
_PROVENANCE = {
    "Engine": ("engine", "name"),
    "ONNX file, SHA-256": ("engine", "onnx_sha256"),
    "Trained file, SHA-256": ("engine", "checkpoint_sha256"),
    "Precision": ("precision",),
    "Backend": ("backend",),
    "Device": ("device",),
    "Decoder": ("decoder",),
    "Preprocessing": ("preprocess",),
    "Versions": ("versions",),
    "Arguments": ("arguments",),
    "Started": ("started",),
    "Ended": ("ended",),
    "Resumed rows": ("counts", "resumed_rows"),
    "Passed by": ("counts", "skipped"),
    "Folders not listed": ("unlisted_folders",),
}
"""Displayed name of each item, and the keys that lead to it in the metadata of a run."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Speed and memory of a run as text; `NOT_RECORDED` for a value that the file does not record."""

    files: str
    """Number of files of the last session of the run."""
    speed: str
    """Images per second once the engine was loaded."""
    elapsed: str
    """Wall-clock time from start to end."""
    memory: str
    """Peak memory of the run."""
    stages: tuple[tuple[str, float], ...]
    """Name and duration in seconds of each recorded stage; stages overlap."""


@dataclass(frozen=True, slots=True)
class DriftText:
    """One kind of drift of a run as text."""

    kind: str
    effect: str
    threshold: str
    is_drift: bool
    sentence: str


def describe_drift(metadata: Mapping[str, Any]) -> tuple[list[DriftText], str]:
    """The kinds of drift that a run recorded, and a sentence on why there are none; both empty if it recorded nothing.

    Args:
        metadata: Metadata that `batchcls run` recorded in the file.
    """
    drift = metadata.get("drift")
    drift = drift if isinstance(drift, dict) else {}
    effects = drift.get("effects")
    rows = [
        DriftText(
            kind=str(effect.get("kind")).replace("_", " "),
            effect=_formatted(effect.get("effect"), "{:.2f}"),
            threshold=_formatted(effect.get("threshold"), "{:.2f}"),
            is_drift=effect.get("is_drift") is True,
            sentence=str(effect.get("sentence", NOT_RECORDED)),
        )
        for effect in (effects if isinstance(effects, list) else [])
        if isinstance(effect, dict)
    ]
    return rows, str(drift.get("note") or "")


def describe_novelty(metadata: Mapping[str, Any]) -> str:
    """From which novelty on the run calls an image novel, and which images it was calibrated on; empty if not recorded.

    Args:
        metadata: Metadata that `batchcls run` recorded in the file.
    """
    novelty = metadata.get("novelty")
    if not isinstance(novelty, dict):
        return ""
    above, images = _formatted(novelty.get("above"), "{:.4g}"), _formatted(novelty.get("calibration_images"), "{:,}")
    return f"An image is novel from {above} on. Images held back for this, of {novelty.get('reference')!r}: {images}."


def describe_provenance(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Descriptions of the engine, device, settings and times of a run, by displayed name.

    Args:
        metadata: Metadata that `batchcls run` recorded in the file.
    """
    return {name: _recorded(metadata, keys) for name, keys in _PROVENANCE.items()}


def describe_throughput(metadata: Mapping[str, Any]) -> Throughput:
    """Speed and memory of the run that wrote a predictions file, of which older versions record less.

    Args:
        metadata: Metadata that `batchcls run` recorded in the file.
    """
    figures = metadata.get("throughput")
    figures = figures if isinstance(figures, dict) else {}
    stages = figures.get("seconds")
    durations = stages.items() if isinstance(stages, dict) else ()
    return Throughput(
        files=_formatted(figures.get("files"), "{:,}"),
        speed=_formatted(figures.get("images_per_s"), "{:,.1f} images/s"),
        elapsed=_formatted(figures.get("elapsed_s"), "{:,.1f} s"),
        memory=_formatted(figures.get("peak_memory_bytes"), "{:,.0f} MiB", unit=2**20),
        stages=tuple((stage, seconds) for stage, seconds in durations if _is_figure(seconds)),
    )


def _formatted(figure: object, form: str, unit: int = 1) -> str:
    if not _is_figure(figure):
        return NOT_RECORDED
    return form.format(figure / unit if unit > 1 else figure)


def _is_figure(value: object) -> TypeGuard[int | float]:
    """Whether ``value`` is a plausible number, and no text or object that a damaged file may hold."""
    return isinstance(value, int | float) and abs(value) < _LARGEST_FIGURE


def _recorded(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    value: Any = metadata
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return _preprocessing(value) if keys == ("preprocess",) else _words(value)


def _words(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_words(item)}" for key, item in value.items() if item is not None) or "none"
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return NOT_RECORDED if value is None else str(value)


def _preprocessing(preprocess: Any) -> str:
    try:
        height, width = preprocess["size_px"]
        cropped = f"shorter side scaled to {preprocess['shorter_px']} px, centre of {width} x {height} px"
        size = f"stretched to {width} x {height} px" if preprocess["resize"] == "stretch" else cropped
        scale = f"mean {_words(preprocess['mean'])}; standard deviation {_words(preprocess['std'])}"
        again = "; renormalised as torchvision's GoogLeNet" if preprocess["transform_input"] else ""
        order = {"BGR": "; channels BGR", "L": "; gray"}.get(preprocess.get("channels"), "")
        return f"{size}, {preprocess['interpolation']}; {scale}{order}{again}"
    except (KeyError, TypeError, ValueError):
        return _words(preprocess)
