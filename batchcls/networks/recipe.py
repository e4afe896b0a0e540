"""The recipe of an engine: the settings that a build needs beside the weights, read from TOML."""

import errno
import tomllib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from batchcls.errors import RecipeError
from batchcls.networks.label_files import read_labels
from batchcls.networks.label_folder import labels_of_folder
from batchcls.networks.preprocess import Preprocess
from batchcls.storage.regular_file import read_text

Precision = Literal["auto", "fp16", "bf16", "fp32", "int8"]
"""Type of an engine's weights and arithmetic."""
Layout = Literal["auto", "NCHW", "NHWC"]
"""Order of the axes of an ONNX classifier's input."""
Output = Literal["auto", "logits", "probabilities"]
"""Meaning of an ONNX classifier's output."""

_LARGEST_BYTES = 1 << 19
_MOST_DOTS = 500
"""Largest number of dots in a line of TOML."""

PREPROCESS_KEYS = frozenset(item.name for item in fields(Preprocess))
"""Keys of a recipe that say how an image becomes the input."""
INPUT_PX = {"inception_v3": 299}
"""Height and width of the input of architectures that were not designed for 224 pixels."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of a build that a state_dict does not contain.

    Raises:
        RecipeError: If a value is out of range, is none of the allowed ones, or labels are empty or equal.
    """

    architecture: str = ""
    """Name that `batchcls.networks.architectures.is_architecture`; empty: the one that the weights fit."""
    labels: tuple[str, ...] = ()
    """Labels in the order of the network's outputs; empty: not known yet."""
    precision: Precision = "auto"
    """Type of the weights and the arithmetic in the engine's ONNX file. ``auto``: fp16 for a checkpoint; an ONNX
    classifier keeps its own precision, or becomes int8."""
    layout: Layout = "auto"
    """Order of the axes of an ONNX classifier's own input; ignored for a checkpoint."""
    output: Output = "auto"
    """Meaning of an ONNX classifier's own output. ``auto``: inferred from its outputs for synthetic images."""
    temperature: float = 1.0
    """Divisor of the logits; above 1, the engine's probabilities are less extreme than the trained network's."""
    preprocess: Preprocess = field(default_factory=Preprocess)
    """Size, channel order and normalization of the images."""

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 100:
            raise RecipeError(f"temperature is {self.temperature!r}; it must lie in 0.01..100")
        if self.precision not in get_args(Precision):
            raise RecipeError(f"precision is {self.precision!r}; use one of {get_args(Precision)}")
        if self.layout not in get_args(Layout):
            raise RecipeError(f"layout is {self.layout!r}; use one of {get_args(Layout)}")
        if self.output not in get_args(Output):
            raise RecipeError(f"output is {self.output!r}; use one of {get_args(Output)}")
        if not all(label.strip() for label in self.labels):
            raise RecipeError(
                f"labels {list(self.labels)} hold an empty one; they must be different from one another and not empty"
            )
        if repeated := sorted(label for label, count in Counter(self.labels).items() if count > 1):
            raise RecipeError(
                f"labels {list(self.labels)} name {', '.join(map(repr, repeated))} more than once; they must be "
                "different from one another"
            )
        if invalid_labels := [label for label in self.labels if not _is_text(label)]:
            raise RecipeError(f"labels {invalid_labels} hold halves of characters, which no file can; write them out")

    @classmethod
    def for_architecture(cls, architecture: str) -> Self:
        """The default recipe of an architecture, with the size of its input."""
        side = INPUT_PX.get(architecture, 224)
        shorter = round(side * 256 / 224)
        return cls(architecture=architecture, preprocess=Preprocess(size_px=(side, side), shorter_px=shorter))

    @classmethod
    def compose(cls, path: Path | None, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Self:
        """A recipe from a TOML file and from values, both by the names of the fields of `Recipe` and `Preprocess`.

        Args:
            path: TOML file, whose values override ``defaults``; None: no file.
            values: Values that override the file, such as those of the command line.
            defaults: Values that override only those of the architecture, such as a trained file's own.

        Raises:
            RecipeError: If the file is not TOML, a key is unknown, or a value has the wrong type or makes no sense.
        """
        merged = {**(defaults or {}), **(_toml(path) if path else {}), **values}
        return cls.for_architecture(str(merged.get("architecture", ""))).with_values(merged)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """A copy of this recipe with other values of its fields, or of those of its preprocessing, by name.

        Raises:
            RecipeError: If a key is unknown, or a value has the wrong type or makes no sense.
        """
        own = {item.name for item in fields(self)} - {"preprocess"}
        inner = {item.name for item in fields(Preprocess)}
        if unknown := set(values) - own - inner:
            raise RecipeError(f"unknown keys {sorted(unknown)}; known are {sorted(own | inner)}")
        preprocess = {key: _typed(key, value, self.preprocess) for key, value in values.items() if key in inner}
        channels = self.preprocess.channels
        if (preprocess.get("channels", channels) == "L") != (channels == "L"):
            preprocess = {"mean": (), "std": (), **preprocess}  # those of gray are no default of color
        outer = {key: _typed(key, value, self) for key, value in values.items() if key in own}
        return replace(self, **outer, preprocess=replace(self.preprocess, **preprocess))


def recipe_keys(path: Path) -> frozenset[str]:
    """The keys of a recipe file.

    Raises:
        RecipeError: If the file is no TOML.
    """
    return frozenset(_toml(path))


def labels_from_argument(text: str) -> tuple[str, ...]:
    """Labels from the value of a ``--labels`` option: a folder of class folders, a file of labels, or ``a,b,c``.

    Raises:
        RecipeError: If the folder holds no class folders, or the file no labels.
    """
    path = Path(text)
    try:
        exists, is_folder = bool(text) and path.exists(), bool(text) and path.is_dir()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise RecipeError(f"labels file {text!r} cannot be read: {error}") from error
        exists = is_folder = False
    if is_folder:
        return labels_of_folder(path)
    return read_labels(path) if exists else _split(text)


def _is_text(label: str) -> bool:
    try:
        label.encode()
    except UnicodeEncodeError:
        return False
    return True


def _split(text: str) -> tuple[str, ...]:
    return tuple(label.strip() for label in text.split(","))


def _toml(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path, _LARGEST_BYTES)
        # tomllib stores every prefix of a dotted key, so 30 KB of dots would take gigabytes.
        if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
            raise ValueError(f"a line of it has more than {_MOST_DOTS} dots; write long lists one item a line")
        return tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"recipe {str(path)!r} cannot be read as TOML: {error}") from error


def _typed(key: str, value: Any, owner: Recipe | Preprocess) -> Any:
    """``value``, converted to the type of the field ``key`` of ``owner``."""
    default = getattr(owner, key)
    if key == "size_px" and type(value) is int:
        return (value, value)
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        kind = str if key == "labels" else type(default[0])
        if all(type(item) is kind or (kind is float and type(item) is int) for item in value):
            with suppress(OverflowError):
                return tuple(kind(item) for item in value)
    elif type(value) is type(default):
        return value
    raise RecipeError(f"{key} is {value!r}; it must be like {default!r}")
