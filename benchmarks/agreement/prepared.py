"""A network with random weights as its library saves it, and the library's own answers to images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

LABELS = ("A", "B", "C", "D")
SEED = 20_260_726
PROBABILITIES = "probabilities.npy"
"""File beside a network: the library's answers, (N, classes) float64, in the order of the images."""
ARGUMENTS = "build.json"
"""File beside a network: a list of what `batchcls build` is given."""

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network that is saved, and the library's answers."""

    source: str
    """Name of the file or folder that `batchcls build` reads."""
    arguments: Sequence[str]
    """Further arguments of `batchcls build`; a path is a name in the network's folder."""
    probabilities: Probabilities


def write_recipe(folder: Path, **keys: object) -> list[str]:
    """Write a recipe into ``folder``, and return the arguments that name it."""
    lines = [
        f"{key} = {value if isinstance(value, int | float | list) else repr(value)}" for key, value in keys.items()
    ]
    (folder / "recipe.toml").write_text("\n".join(lines) + "\n", encoding="ascii")
    return ["--recipe", "recipe.toml"]
