"""The features of an engine's probes, by which other backends find the layers that the features come from."""

from pathlib import Path

import numpy as np

from batchcls.engine.manifest import Manifest
from batchcls.engine.probes import PROBE_COUNT
from batchcls.errors import EngineError
from batchcls.records import Features
from batchcls.storage.atomic import write_whole
from batchcls.storage.regular_file import read_bytes

PROBE_FEATURES = "probe_features.bin"
"""Name, in an engine folder, of the file of the features of the probes: little-endian float32, probe after probe."""


def write_probe_features(folder: Path, features: Features) -> None:
    """Write the features of all probes, (16, F) float32, into an engine folder."""
    write_whole(folder / PROBE_FEATURES, features.astype("<f4").tobytes())


def read_probe_features(folder: Path, manifest: Manifest) -> Features:
    """The features of all probes, (16, F) float32, as the engine computed them in float32 when it was built.

    Raises:
        EngineError: If the engine has no features, or the file is missing or of another size.
    """
    width = manifest.features.width if manifest.features else 0
    path = folder / PROBE_FEATURES
    try:
        content = read_bytes(path, 4 * PROBE_COUNT * width)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{str(path)!r} cannot be read: {error}; run: batchcls build CHECKPOINT --out ENGINE --overwrite"
        ) from error
    if not width or len(content) != 4 * PROBE_COUNT * width:
        raise EngineError(
            f"{str(path)!r} has {len(content):,} bytes, and its engine {width:,} features of {PROBE_COUNT} probes; "
            "run: batchcls build CHECKPOINT --out ENGINE --overwrite"
        )
    return np.frombuffer(content, "<f4").reshape(PROBE_COUNT, width)
