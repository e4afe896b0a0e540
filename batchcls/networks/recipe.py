"""How an engine is built: typed defaults, read from TOML."""

import errno
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

from batchcls.errors import RecipeError
from batchcls.networks.label_files import read_labels
from batchcls.records import Preprocess
from batchcls.storage.regular_file import read_text

Precision = Literal["auto", "fp16", "bf16", "fp32", "int8"]
Layout = Literal["auto", "NCHW", "NHWC"]
Output = Literal["auto", "logits", "probabilities"]

_LARGEST_BYTES = 1 << 19
_MOST_DOTS = 500

INPUT_PX = {"inception_v3": 299}
"""Networks that were not designed for 224 pixels."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a build that the checkpoint does not say."""

    architecture: str = ""
    """Empty: found from the weights' names."""
    labels: tuple[str, ...] = ()
    """In the order of the network's outputs."""
    precision: Precision = "auto"
    """Of the weights and the arithmetic in the engine's ONNX file. ``auto``: fp16 for a checkpoint, and its own for
    an ONNX classifier, which can otherwise be made int8 alone."""
    layout: Layout = "auto"
    """Of an ONNX classifier's own input; a checkpoint does not need it."""
    output: Output = "auto"
    """What an ONNX classifier's own output is. ``auto``: decided by what it answers to drawn images."""
    temperature: float = 1.0
    """That logits are divided by: above 1 the engine is less sure of itself than the trained network."""
    preprocess: Preprocess = field(default_factory=Preprocess)

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 100:
            raise RecipeError(f"temperature is {self.temperature!r}; it must lie in 0.01..100")
        if self.precision not in get_args(Precision):
            raise RecipeError(f"precision is {self.precision!r}; use one of {get_args(Precision)}")
        if self.layout not in get_args(Layout):
            raise RecipeError(f"layout is {self.layout!r}; use one of {get_args(Layout)}")
        if self.output not in get_args(Output):
            raise RecipeError(f"output is {self.output!r}; use one of {get_args(Output)}")
        if len(set(self.labels)) != len(self.labels) or not all(label.strip() for label in self.labels):
            raise RecipeError(f"labels {list(self.labels)} must be different from one another and not empty")
        if halves := [label for label in self.labels if not _is_text(label)]:
            raise RecipeError(f"labels {halves} hold halves of characters, which no file can; write them out")

    @classmethod
    def for_architecture(cls, architecture: str) -> Self:
        """The recipe of a network that nothing else is said about."""
        side = INPUT_PX.get(architecture, 224)
        shorter = round(side * 256 / 224)
        return cls(architecture=architecture, preprocess=Preprocess(size_px=(side, side), shorter_px=shorter))

    @classmethod
    def compose(cls, path: Path | None, values: Mapping[str, Any], found: Mapping[str, Any] | None = None) -> Self:
        """A recipe from a TOML file whose keys are the fields of `Recipe` and `Preprocess`.

        Args:
            values: They win over the file.
            found: What the trained file tells of itself; the file and ``values`` win over it.

        Raises:
            RecipeError: If the file is not TOML, a key is unknown, or a value is of another type.
        """
        merged = {**(found or {}), **(_toml(path) if path else {}), **values}
        return cls.for_architecture(str(merged.get("architecture", ""))).with_values(merged)

    def with_values(self, values: Mapping[str, Any]) -> Self:
        """This recipe with the named fields of it, or of its preprocessing, replaced."""
        own = {item.name for item in fields(self)} - {"preprocess"}
        inner = {item.name for item in fields(Preprocess)}
        if unknown := set(values) - own - inner:
            raise RecipeError(f"unknown keys {sorted(unknown)}; known are {sorted(own | inner)}")
        preprocess = {key: _typed(key, value, self.preprocess) for key, value in values.items() if key in inner}
        outer = {key: _typed(key, value, self) for key, value in values.items() if key in own}
        return replace(self, **outer, preprocess=replace(self.preprocess, **preprocess))


def labels_of(text: str) -> tuple[str, ...]:
    """Labels from ``a,b,c``, or from a file that `read_labels` reads.

    Raises:
        RecipeError: If the file does not hold labels.
    """
    path = Path(text)
    try:
        named = bool(text) and path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise RecipeError(f"labels file {text!r} cannot be read: {error}") from error
        named = False
    return read_labels(path) if named else _split(text)


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
        # Of a dotted key tomllib keeps every beginning, so 30 KB of dots take gigabytes.
        if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):
            raise ValueError(f"a line of it has more than {_MOST_DOTS} dots; write long lists one item a line")
        return tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"recipe {str(path)!r} cannot be read as TOML: {error}") from error


def _typed(key: str, value: Any, owner: Recipe | Preprocess) -> Any:
    """``value`` in the type of the default that it replaces."""
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
