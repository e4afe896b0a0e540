"""The file of an engine folder that holds the statistics of novelty."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchcls.engine.manifest import Manifest
from batchcls.engine.novelty import LARGEST_BYTES, Novelty
from batchcls.errors import EngineError
from batchcls.storage.regular_file import read_bytes

NOVELTY = "novelty.bin"
"""Name of the file in an engine folder: little-endian float32, in the order of `Novelty.to_bytes`."""


def read_novelty(folder: Path, manifest: Manifest) -> Novelty | None:
    """The statistics of novelty in an engine folder; None for an engine that cannot tell novelty.

    Raises:
        EngineError: If the file is missing, or is not the one that the manifest was written for.
    """
    if manifest.novelty is None:
        return None
    path = folder / NOVELTY
    try:
        if manifest.features is None:
            raise ValueError("the network has no features")
        novelty = Novelty.from_bytes(read_bytes(path, LARGEST_BYTES), manifest.novelty["statistics"])
        if novelty.feature_count != manifest.features.width:
            raise ValueError(
                f"it is of {novelty.feature_count:,} features, the network has {manifest.features.width:,}"
            )
        return novelty
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise EngineError(
            f"{str(path)!r} does not hold the statistics that its engine was given: {error}; give it others: "
            "batchcls build ENGINE --novelty-from DIR"
        ) from error


def group_names(statistics: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the groups of features in a header of `Novelty`.

    Raises:
        EngineError: If it is none.
    """
    try:
        return tuple(str(name) for name, *_ in statistics["groups"])
    except (LookupError, TypeError, ValueError) as error:
        raise EngineError(
            f"the engine's manifest names no groups of features: {error}; give it statistics: batchcls build ENGINE "
            "--novelty-from DIR"
        ) from error
