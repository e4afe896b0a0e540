"""What a predictions file says of its own making, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

NOT_RECORDED = "not recorded"
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
"""Where a run's metadata says what."""


def provenance(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What a run's ``metadata`` says of how the rows were made."""
    return {name: _said(metadata, keys) for name, keys in _PROVENANCE.items()}


def throughput(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a run took; files from before this was recorded say nothing."""
    figures = metadata.get("throughput")
    figures = figures if isinstance(figures, dict) else {}
    forms = {
        "files": ("files", "{:,}", 1),
        "speed": ("images_per_s", "{:,.1f} images/s", 1),
        "elapsed": ("elapsed_s", "{:,.1f} s", 1),
        "memory": ("peak_memory_bytes", "{:,.0f} MiB", 2**20),
    }
    stages = figures.get("seconds")
    shown = {
        name: form.format(figures[key] / unit if unit > 1 else figures[key])
        if _is_figure(figures.get(key))
        else NOT_RECORDED
        for name, (key, form, unit) in forms.items()
    }
    spent = stages.items() if isinstance(stages, dict) else ()
    return {**shown, "stages": [(stage, s) for stage, s in spent if _is_figure(s)]}


def rewriting(metadata: Mapping[str, Any], labels: Sequence[str], rows: int) -> list[str]:
    """What became of a file since `batchcls run` wrote it, as far as that can be seen."""
    if not metadata:
        return [
            "The predictions were written again by another program: what batchcls run recorded of the engine and of "
            f"its rows is gone, and some may be missing. The order of the labels is {', '.join(labels)}."
        ]
    counts = metadata.get("counts")
    written = counts.get("rows") if isinstance(counts, dict) else None
    if isinstance(written, int) and written != rows:
        return [f"The predictions are {rows:,} rows, where batchcls run wrote {written:,}: figures are of these alone."]
    return []


def _is_figure(value: Any) -> bool:
    """Whether it is a number that a run can have come to."""
    return isinstance(value, int | float) and abs(value) < _LARGEST_FIGURE


def _said(metadata: Mapping[str, Any], keys: Sequence[str]) -> str:
    found: Any = metadata
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return _preprocessing(found) if keys == ("preprocess",) else _words(found)


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_words(item)}" for key, item in value.items() if item is not None) or "none"
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return NOT_RECORDED if value is None else str(value)


def _preprocessing(found: Any) -> str:
    try:
        height, width = found["size_px"]
        cropped = f"shorter side scaled to {found['shorter_px']} px, centre of {width} x {height} px"
        size = f"stretched to {width} x {height} px" if found["resize"] == "stretch" else cropped
        scale = f"mean {_words(found['mean'])}; standard deviation {_words(found['std'])}"
        again = "; renormalised as torchvision's GoogLeNet" if found["transform_input"] else ""
        order = "; channels BGR" if found.get("channels") == "BGR" else ""
        return f"{size}, {found['interpolation']}; {scale}{order}{again}"
    except (KeyError, TypeError, ValueError):
        return _words(found)
