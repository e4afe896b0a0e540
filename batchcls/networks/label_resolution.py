"""The labels of a trained file: those named by the user, in the file itself, or in files beside it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchcls.errors import RecipeError
from batchcls.networks.label_files import parse_labels_text, read_labels
from batchcls.networks.label_values import LABEL_KEYS, UnclearLabelsError, comparable_labels, parse_labels
from batchcls.networks.saving_advice import weights_alone_advice
from batchcls.networks.unpickling_stand_ins import find_values, plain_value

LABEL_FILES = (
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
"""Names of files with labels beside a trained file.

Those with the trained file's name before theirs, as in ``net.labels.json``, win over the others.
"""

_ONLY_LABELS = LABEL_FILES[:4]
"""Names of files that can hold nothing but labels."""
_PLACEHOLDER = re.compile(r"LABEL_\d+")
"""Names that the library transformers gives to classes that have no name."""
_MOST_NAMED = 12
"""Largest number of labels that an error names."""


@dataclass(frozen=True, slots=True)
class KnownLabels:
    """Labels that a trained file or a file beside it names."""

    labels: tuple[str, ...]
    """Labels in the order of the network's outputs."""
    source: str
    """Key and file that name the labels, as text for messages."""
    remedy: str
    """Instruction for the user if the labels are wrong, as text for errors."""


def resolve_labels(
    checkpoint: Path, classes: int, given: tuple[str, ...], contents: Mapping[Any, Any]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels of a trained file, and notes to print: the source of the labels, unless the user named them.

    Args:
        checkpoint: Path of the trained file; files beside it may name labels.
        classes: Number of the network's outputs.
        given: Labels from the command line or a recipe; empty if the user named none.
        contents: Everything in the trained file, with stand-ins for its objects, or its metadata as text.

    Raises:
        RecipeError: If no labels are known, their number is not ``classes``, or two sources name different labels.
    """
    unclear: list[str] = []
    sources = [*_labels_inside(checkpoint, contents), *_labels_beside(checkpoint, unclear)]
    sources = [item for item in sources if _are_names(item.labels)]
    known = [item for item in sources if len(item.labels) == classes]
    labels = given or (known[0].labels if known else ())
    if len(labels) != classes:
        named = f"{len(labels)} labels were named {_first_labels(labels)}" if labels else "none was named"
        others = [f"{item.source} says {_first_labels(item.labels)}" for item in known or sources]
        reason = "; ".join([named, *others, *unclear * (not labels)])
        raise RecipeError(
            f"{str(checkpoint)!r} has {classes} classes, {reason}; name them in its order: --labels A,B,..."
        )
    source = "the labels that were named are" if given else f"{known[0].source} says"
    for other in known:
        if not _agree(other.labels, labels):
            raise RecipeError(
                f"{source} {_first_labels(labels)}, but {other.source} says {_first_labels(other.labels)}; "
                f"correct what is wrong, or {other.remedy}"
            )
    return labels, () if given else (f"labels of {known[0].source}: {', '.join(labels)}",)


def _labels_inside(checkpoint: Path, contents: Mapping[Any, Any]) -> Iterator[KnownLabels]:
    """Labels under any of the usual keys for labels, at the top of the file's contents or nested."""
    remedy = weights_alone_advice(checkpoint)
    for key, value in find_values(contents, LABEL_KEYS):
        try:
            labels = parse_labels_text(value, key) if isinstance(value, str) else parse_labels(plain_value(value), key)
        except UnclearLabelsError:
            continue  # the value is no list of labels, but a number of classes, for example
        yield KnownLabels(labels, f"{key!r} in {checkpoint.name!r}", remedy)


def _labels_beside(checkpoint: Path, unclear: list[str]) -> Iterator[KnownLabels]:
    """Labels of files beside the trained file.

    Args:
        unclear: List to which the error of each file is appended that should hold labels and does not.
    """
    own = [checkpoint.with_name(f"{checkpoint.stem}.{name}") for name in LABEL_FILES]
    paths = [path for path in own if path.is_file()] or [checkpoint.with_name(name) for name in LABEL_FILES]
    for path in paths:
        if path.is_file():
            try:
                yield KnownLabels(read_labels(path), f"{path.name!r} beside it", f"move {path.name!r} elsewhere")
            except RecipeError as error:
                unclear += [str(error)] * (path.name in _ONLY_LABELS)


def _are_names(labels: Sequence[str]) -> bool:
    """Whether labels are different from one another, not blank, and not placeholders."""
    are_distinct = len(set(labels)) == len(labels) and all(label.strip() for label in labels)
    return are_distinct and not all(_PLACEHOLDER.fullmatch(label) for label in labels)


def _agree(labels: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two lists of labels are equal, apart from case, and from blanks and signs that distinguish no labels."""
    return comparable_labels(labels, labels) == comparable_labels(others, labels)


def _first_labels(labels: Sequence[str]) -> str:
    return f"[{', '.join(labels[:_MOST_NAMED])}{', ...' if len(labels) > _MOST_NAMED else ''}]"
