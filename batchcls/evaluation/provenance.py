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
class Drift:
    """How far the images of a run are, in one respect, from those that the engine was made for."""

    name: str
    effect: str
    """Size of the difference, in the spread between sets of the engine's own images."""
    threshold: str
    """Size from which on it counts."""
    drifts: bool
    words: str
    """What the images are, such as ``darker``; empty where they do not drift."""


def describe_drift(metadata: Mapping[str, Any]) -> list[Drift]:
    """The kinds of drift that a run recorded; none if it recorded none.

    Args:
        metadata: Metadata that `batchcls run` recorded in the file.
    """
    drift = metadata.get("drift")
    kinds = drift.get("kinds") if isinstance(drift, dict) else None
    return [
        Drift(
            name=str(kind.get("name")),
            effect=_formatted(kind.get("effect"), "{:.1f}"),
            threshold=_formatted(kind.get("threshold"), "{:.1f}"),
            drifts=kind.get("drifts") is True,
            words=str(kind.get("words") or "") if kind.get("drifts") is True else "",
        )
        for kind in (kinds if isinstance(kinds, list) else [])
        if isinstance(kind, dict)
    ]


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
