"""Prepare a network in a process of its own: ``python -m benchmarks.agreement.prepare LIBRARY NAME FOLDER IMAGES``."""

import json
import sys
from importlib import import_module
from pathlib import Path

import numpy as np

from benchmarks.agreement.prepared import ARGUMENTS, PROBABILITIES, Prepared


def main(library: str, name: str, folder: Path, images: Path) -> None:
    """Save a network and its library's answers below ``folder``, and the arguments of `batchcls build`."""
    prepared: Prepared = import_module(f"benchmarks.agreement.{library.lower()}_networks").prepare(
        name, folder, sorted(images.iterdir())
    )
    np.save(folder / PROBABILITIES, prepared.probabilities)
    (folder / ARGUMENTS).write_text(json.dumps([prepared.source, *prepared.arguments]), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
