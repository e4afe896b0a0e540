"""Check that an engine tells novelty here as it does where it learned to: by the features of its probes."""

from pathlib import Path

import numpy as np

from batchcls.engine.base import Engine
from batchcls.engine.manifest import Manifest
from batchcls.engine.novelty_file import read_novelty
from batchcls.engine.probe_features import read_probe_features
from batchcls.engine.probes import draw_probes
from batchcls.errors import VerificationError

_LARGEST_CHANGE, _LARGEST_CHANGE_OF_INT8 = 0.05, 0.2
"""Largest relative change of a probe's distance that rounding explains: of a GoogLeNet, bfloat16 changes none by more
than 0.008. The measurements: docs/explanation/design.md, "Probes"."""


def check_novelty(engine: Engine, folder: Path, manifest: Manifest) -> None:
    """Refuse an engine whose features of its probes are not those of its build; fine without novelty or features.

    Args:
        engine: The engine, opened with its features.
        folder: The engine folder.
        manifest: The folder's manifest.

    Raises:
        EngineError: If the folder's files of novelty are damaged.
        VerificationError: If the distances differ by more than rounding explains.
    """
    novelty = read_novelty(folder, manifest)
    features = engine.infer(draw_probes(manifest.preprocess.size_px, manifest.probes)).features
    if novelty is None or not features.shape[1]:
        return
    expected = novelty.score(read_probe_features(folder, manifest)).distances
    actual = novelty.score(features).distances
    change = float(np.nan_to_num(np.abs(actual - expected) / np.maximum(expected, 1e-6), nan=np.inf).max())
    largest = _LARGEST_CHANGE_OF_INT8 if manifest.precision == "int8" else _LARGEST_CHANGE
    if change > largest:
        info = engine.info
        precision = "--precision fp32" if info.precision == "bf16" and info.device == "cpu" else "--backend openvino"
        raise VerificationError(
            f"engine {info.name!r} tells novelty by {info.backend} {info.precision} on {info.device} otherwise than "
            f"where it learned to: distances of its probes differ by up to {change:.1%}, rounding explains "
            f"{largest:.0%}; run: batchcls run {precision}, or batchcls build ENGINE --novelty-from DIR"
        )
