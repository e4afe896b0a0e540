"""What a trained file, and the files beside it, say of its labels; and whether that is what was named."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchcls.errors import RecipeError
from batchcls.networks.label_files import KEYS, UnclearLabelsError, labels_from, labels_in_text, read_labels
from batchcls.networks.stand_ins import Array, named_values

BESIDE = (
    "class_to_idx.json",
    "idx_to_class.json",
    "id2label.json",
    "label2id.json",
    "class_names.json",
    "class_names.txt",
    "classes.json",
    "classes.txt",
    "labels.json",
    "labels.txt",
    "config.json",
)
"""Files that tell of labels, in the folder of the trained file; with its name before theirs they win over the rest."""

_OF_LABELS_ALONE = BESIDE[:4]
_PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What transformers calls a class that nobody named."""
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class KnownLabels:
    """Labels, and where they stand."""

    labels: tuple[str, ...]
    source: str
    remedy: str
    """What to do where they are wrong."""


def settled_labels(
    checkpoint: Path, classes: int, named: tuple[str, ...], about: Mapping[Any, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels of a trained file of so many ``classes``, and a line on where they were found if none were named.

    Args:
        named: By the command line, or a recipe.
        about: All that the file holds, or its metadata as text.

    Raises:
        RecipeError: If there are none, not as many as classes, or others are named than those that are known.
    """
    unclear: list[str] = []
    known = [*_inside(checkpoint, about), *_beside(checkpoint, unclear)]
    known = [item for item in known if len(item.labels) == classes and _are_names(item.labels)]
    labels = named or (known[0].labels if known else ())
    if len(labels) != classes:
        told = "; ".join([f"{len(labels)} labels were named" if labels else "none was named", *unclear * (not labels)])
        raise RecipeError(
            f"{str(checkpoint)!r} has {classes} classes, {told}; name them in its order: --labels A,B,..."
        )
    source = "the labels that were named are" if named else f"{known[0].source} says"
    for other in known:
        if not _agree(other.labels, labels):
            raise RecipeError(
                f"{source} {_shown(labels)}, but {other.source} says {_shown(other.labels)}; "
                f"correct what is wrong, or {other.remedy}"
            )
    return labels, () if named else (f"labels of {known[0].source}: {', '.join(labels)}",)


def _inside(checkpoint: Path, about: Mapping[Any, Any]) -> Iterator[KnownLabels]:
    """Labels under the keys that are known to tell of them, wherever in the file."""
    weights = f"save the weights alone: torch.save(model.state_dict(), {checkpoint.name!r})"
    remedy = "take it out of the file's metadata" if checkpoint.suffix == ".onnx" else weights
    for key, value in named_values(about, KEYS):
        try:
            labels = labels_in_text(value, key) if isinstance(value, str) else labels_from(_plain(value), key)
        except UnclearLabelsError:
            continue  # a number of classes, say
        yield KnownLabels(labels, f"{key!r} in {checkpoint.name!r}", remedy)


def _plain(value: Any) -> Any:
    """``value`` with an array as a list."""
    return value.values() if isinstance(value, Array) else value


def _beside(checkpoint: Path, unclear: list[str]) -> Iterator[KnownLabels]:
    """Labels of files beside the trained one; ``unclear`` is given what is wrong with those that hold none."""
    own = [checkpoint.with_name(f"{checkpoint.stem}.{name}") for name in BESIDE]
    paths = [path for path in own if path.is_file()] or [checkpoint.with_name(name) for name in BESIDE]
    for path in paths:
        if path.is_file():
            try:
                yield KnownLabels(read_labels(path), f"{path.name!r} beside it", f"move {path.name!r} elsewhere")
            except RecipeError as error:
                unclear += [str(error)] * (path.name in _OF_LABELS_ALONE)


def _are_names(labels: Sequence[str]) -> bool:
    """Whether labels tell classes apart, and were named by somebody."""
    distinct = len(set(labels)) == len(labels) and all(label.strip() for label in labels)
    return distinct and not all(_PLACEHOLDER.fullmatch(label) for label in labels)


def _agree(some: Sequence[str], others: Sequence[str]) -> bool:
    """Whether labels are the same but for case; and for blanks and signs, where these tell no labels apart."""
    plain = [[label.strip().casefold() for label in labels] for labels in (some, others)]
    letters = [[re.sub(r"[\W_]+", "", label) for label in labels] for labels in plain]
    simple = all(len(set(labels)) == len(labels) and all(labels) for labels in letters)
    first, second = letters if simple else plain
    return first == second


def _shown(labels: Sequence[str]) -> str:
    return f"[{', '.join(labels[:_SHOWN])}{', ...' if len(labels) > _SHOWN else ''}]"
